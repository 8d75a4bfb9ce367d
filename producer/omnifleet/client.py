"""The client: understand, generate and edit audio with a fleet of workers."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from omnifleet_shared.observability import tracing as traces
from omnifleet_shared.schema.base import check_tenant
from omnifleet_shared.settings import FleetSettings, load_settings
from omnifleet_shared.storage import Storage, open_storage

from .adapters import Adapters
from .batch.outcome import Outcome
from .batch.sender import JobSender
from .batch.stream import OutcomeStream
from .handle import JobHandle
from .request.calls import Calls
from .request.maker import JobMaker
from .request.request import Request
from .results.results import AudioResult, JobResult, TextResult
from .routing.route import KnownModel
from .transport.celery import CeleryTransport, JobTransport
from .voices import Voices


class Client(Calls[JobHandle[TextResult], JobHandle[AudioResult]]):
    """Sends jobs to a fleet. Safe to share between threads; close it, or use it as a context manager.

    It may be made and used before a process forks (gunicorn's `--preload`, Celery's prefork pool, multiprocessing):
    each process has connections of its own. Under gevent, patch before anything is imported. At most 16 connections
    that nobody uses stay open.

    Every call checks its request, uploads local media under their hash, sends the job and returns at once.

    Args:
        settings: all settings at once; from `OMNIFLEET_*` in the environment by default.
        redis_url: overrides the setting.
        storage: overrides the setting with a URI, or is an opened `Storage` itself.
        s3_endpoint: overrides the setting.
        queue: overrides the setting.
        tenant: overrides the setting.
        transport: carries the jobs instead of Celery; it is the caller's to close.

    Raises:
        InvalidSetting: a setting that does not parse.
    """

    def __init__(
        self,
        settings: FleetSettings | None = None,
        *,
        redis_url: str | None = None,
        storage: str | Storage | None = None,
        s3_endpoint: str | None = None,
        queue: str | None = None,
        tenant: str | None = None,
        transport: JobTransport | None = None,
    ) -> None:
        overrides = {"redis_url": redis_url, "s3_endpoint": s3_endpoint, "queue": queue, "tenant": tenant}
        self._settings, self._storage = settings_and_storage(settings, storage, overrides)
        self._transport = transport or CeleryTransport(self._settings)
        self._maker = JobMaker(self._settings, self._storage, self._transport.pending_deletion, self._transport.workers)
        self._closes_transport = transport is None

    def batch(
        self, jobs: Iterable[Request | Mapping[str, Any]], *, in_flight: int | None = None, in_order: bool = False
    ) -> Iterator[Outcome]:
        """Do many jobs, and iterate over their outcomes, each as soon as it is there.

        Jobs are pulled from the iterator as others end, never more than `in_flight` ahead of what was given out, and
        their media are uploaded alongside. A job that fails, or is none, is an outcome with an `error` and leaves the
        others alone. Where Redis or the storage goes away meanwhile, the batch waits for it.

        Args:
            jobs: calls of `omnifleet.batch.understand`, `generate` and `edit`, which take the same arguments as the
                methods here, or mappings such as `{"task": "edit.add", "audio": "street.wav", "desc": "rain"}`.
            in_flight: jobs in the fleet at a time; by default twice what its workers hold at once, 16 at least.
            in_order: give the outcomes in the order of the jobs.

        Raises:
            InvalidJob: `in_flight` below 1.
            BrokerUnavailable, StorageUnavailable, StorageRefused, InvalidSetting: while iterating, before the first
                job was sent.
        """
        return iter(OutcomeStream(self.sender, jobs, in_flight, in_order))

    def job(self, job_id: str) -> JobHandle[JobResult]:
        """Return the handle of a job by its id, whichever process sent it. It is not looked up before it is used."""
        return self._handle(job_id)

    def of_tenant(self, tenant: str) -> Self:
        """Make a client whose jobs are this tenant's, over the connections of this one, which stays the one to close.

        Raises:
            InvalidSetting: not a name of a tenant.
        """
        other = copy.copy(self)
        other._transport = self._transport.of_tenant(check_tenant(tenant))
        other._closes_transport = False
        return other

    def models(self) -> list[KnownModel]:
        """List the models of `OMNIFLEET_MODELS`, in its order, and then others with a ready worker.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        return self._maker.router.offered()

    @property
    def adapters(self) -> Adapters:
        """The named adapters of the storage: add, get, list and remove them."""
        return Adapters(self._settings, self._storage)

    @property
    def voices(self) -> Voices:
        """The named voices of the storage: add, get, list and remove them."""
        return Voices(self._settings, self._storage)

    @property
    def sender(self) -> JobSender:
        """Sends the jobs of this client's batches."""
        return JobSender(self._settings, self._storage, self._transport)

    def close(self) -> None:
        """Close the connections that this client opened."""
        if self._closes_transport:
            self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _submit(self, request: Request) -> JobHandle[Any]:
        with traces.span(request.title, "client"):
            return self._handle(self._transport.submit(*self._maker.make(request)))

    def _handle(self, job_id: str) -> JobHandle[Any]:
        return JobHandle(job_id, self._transport, self._storage, self._settings.url_lifetime)


def settings_and_storage(
    settings: FleetSettings | None, storage: str | Storage | None, overrides: Mapping[str, str | None]
) -> tuple[FleetSettings, Storage]:
    """Return the settings and storage of a client, from its arguments and the environment. Raises InvalidSetting."""
    uri = None if isinstance(storage, Storage) else storage
    chosen = _settings(settings, {**overrides, "storage": uri})
    return chosen, storage if isinstance(storage, Storage) else open_storage(chosen)


def _settings(settings: FleetSettings | None, overrides: Mapping[str, str | None]) -> FleetSettings:
    changes = {name: value for name, value in overrides.items() if value is not None}
    if settings is not None and not changes:
        return settings
    return load_settings(FleetSettings, **((settings.model_dump() if settings else {}) | changes))
