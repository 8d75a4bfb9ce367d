"""Settings that producers and workers share, from `OMNIFLEET_*` in the environment."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from .errors import InvalidSetting
from .keys import MODEL, MODEL_NAME, MODEL_QUEUE
from .schema.base import TenantName

MEBIBYTE = 2**20
PREFIX = "OMNIFLEET_"
ALIKE = 0.85
"""Likeness of two names (difflib) that makes one a slip of the other: no two processes have any so alike."""
S = TypeVar("S", bound="FleetSettings")


def _entries(models: str) -> list[tuple[str, str]]:
    """Split `OMNIFLEET_MODELS` into names and queues, which are empty where none is given. Raises ValueError."""
    entries = [tuple(part.strip() for part in entry.partition("=")[::2]) for entry in models.split(",")]
    for name, queue in entries:
        if not re.fullmatch(MODEL_NAME, name) or re.search(r"[\s=\x06]", queue):
            raise ValueError(f"{name[:80]!r} is no name of a model, as in audio-omni,voxcpm2 or voxcpm2=its-queue")
    if len({name for name, _ in entries}) < len(entries):
        raise ValueError("a model is there twice")
    return [(name, queue) for name, queue in entries]


def _check_models(models: str) -> str:
    _entries(models)
    return models


class FleetSettings(BaseSettings):
    """Settings that both sides share. Credentials for S3 come from the standard `AWS_*` variables."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", use_attribute_docstrings=True, env_ignore_empty=True
    )

    redis_url: str = "redis://localhost:6379/0"
    """Redis that carries jobs and their results: `redis://user:password@host:6379/0`, `rediss://` for TLS with
    verified certificates (`ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_check_hostname` and `ssl_cert_reqs` as
    its options), or `unix:///path?db=0`."""
    redis_sentinels: str | None = None
    """Sentinels that know which Redis is the master, as `host:port,host:port`, or with a login and TLS of their own as
    `rediss://user:password@host:port,host:port?ssl_ca_certs=…`; then `redis_url` gives user, password, database and TLS
    of the Redis alone."""
    redis_master: str = "mymaster"
    """Name of the master that the sentinels watch."""
    redis_timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Seconds to wait for Redis before an operation fails with BrokerUnavailable."""
    queue: str = MODEL
    """Queue that jobs are sent to and workers take them from."""
    models: Annotated[str, AfterValidator(_check_models)] = MODEL
    """Models that jobs are sent to, the preferred one first, as in `audio-omni,voxcpm2`. The queue of `audio-omni` is
    `OMNIFLEET_QUEUE`, that of another model the same with a full stop and its name, as in `audio-omni.voxcpm2`, or the
    one that is given with it, as in `voxcpm2=speech`. A job goes to the first that can do it, those with a ready worker
    before the others."""
    result_lifetime: Annotated[int, Field(ge=60)] = 7 * 24 * 3600
    """Seconds that a job's state and result record stay in Redis. The audio itself stays in storage."""
    lease: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 10.0
    """Seconds that a job stays with a worker that gives no sign of life; another worker starts it soon after."""
    max_queued: Annotated[int, Field(ge=1)] = 100_000
    """Jobs that may wait in the queue; one more is refused with QueueFull."""
    producer: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] | None = None
    """Name under which this producer's unfinished jobs are counted, together with those of its namesakes."""
    max_unfinished: Annotated[int, Field(ge=1)] | None = None
    """Jobs without an outcome that this producer may have; one more is refused with QueueFull. No limit by default."""
    tenant: TenantName | None = None
    """Tenant whose jobs these are: tenants share the fleet's time by their weights, and have their quotas. The jobs of
    all who name none count as one tenant's."""
    storage: str = f"file://{Path.home()}/.omnifleet/storage"
    """Home of all media: `s3://bucket/prefix`, or `file:///folder` that producers and workers both see."""
    s3_endpoint: str | None = None
    """Endpoint of an S3-compatible service such as MinIO; AWS when absent."""
    s3_public_endpoint: str | None = None
    """Endpoint that links name, where those who follow them reach the storage by another one than workers do."""
    s3_region: str | None = None
    """Region that requests are signed for; when absent, `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's, or else
    us-east-1."""
    s3_path_style: bool = True
    """Bucket in the path, as MinIO wants it, not in the host name."""
    input_lifetime: Annotated[int, Field(ge=3600)] = 30 * 24 * 3600
    """Seconds from its submission for which a job without a deadline keeps its inputs from `omnifleet storage gc`."""
    url_lifetime: Annotated[int, Field(ge=1, le=7 * 24 * 3600)] = 24 * 3600
    """Seconds that a presigned link works; less where the credentials that sign it end before."""
    max_input_bytes: Annotated[int, Field(ge=1)] = 512 * MEBIBYTE
    """Largest media file that is taken."""
    callback_hosts: str | None = None
    """Hosts that callbacks may go to, as `host`, `host:port` (both https) or `http://host:port`, separated by commas;
    none by default. A name may lead to a private address only within a network given with it, as in
    `http://backend.svc:8000=10.0.0.0/8`. Producers that know the list refuse what is not on it at once."""

    @property
    def model_queues(self) -> dict[str, str]:
        """Queues of the models of `models`, by the models' names, in their order."""
        return {model: queue or self.queue_of(model) for model, queue in _entries(self.models)}

    def queue_of(self, model: str) -> str:
        """Name the queue of a model, one of `models` or not."""
        given = dict(_entries(self.models)).get(model)
        return given or (self.queue if model == MODEL else MODEL_QUEUE.format(queue=self.queue, model=model))


def load_settings(cls: type[S], **values: object) -> S:
    """Read settings, from keyword arguments first and the environment second.

    Raises:
        InvalidSetting: a setting that does not parse, or a variable that is a setting's but for a slip; names the
            variable.
    """
    _refuse_mistyped(cls)
    try:
        return cls(**cast(dict[str, Any], values))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"{PREFIX}{'_'.join(str(part) for part in first['loc']).upper()}"
        # Neither repeated nor chained: what stands in a secret's place is a secret.
        if any(_is_secret(cls.model_fields[str(part)].annotation) for part in first["loc"][:1]):
            raise InvalidSetting(f"this will not do: {first['msg']}", name) from None
        raise InvalidSetting(f"{first.get('input')!r} will not do: {first['msg']}", name) from error


def _refuse_mistyped(cls: type[FleetSettings]) -> None:
    """Refuse a variable that would be passed over for a slip of the pen. Others of the prefix are let be."""
    for variable in os.environ:
        name = variable.upper().removeprefix(PREFIX).lower()
        if not variable.upper().startswith(PREFIX) or name in cls.model_fields:
            continue
        for meant in get_close_matches(name, cls.model_fields, n=1, cutoff=ALIKE):
            remedy = f"The nearest one is {PREFIX}{meant.upper()}"
            raise InvalidSetting("there is no such setting", variable, remedy)


def _is_secret(form: object) -> bool:
    return form is SecretStr or any(map(_is_secret, get_args(form)))
