"""API keys: what is kept of them, and how a key as its holder sends it is read."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated

from omnifleet_shared.errors import InvalidJob, KeyRefused
from omnifleet_shared.schema.base import Record, Sha256, TenantName
from pydantic import AwareDatetime, ConfigDict, Field, StringConstraints, ValidationError

FORM = re.compile(r"of_(?P<id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
DEFAULT_RATE = 600.0


class ApiKey(Record):
    """An API key as the fleet keeps it. Its secret is not in it, and cannot be found from it."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]
    """Names the key in lists, logs and when it is revoked."""
    sha256: Sha256
    """Of the secret, which has 256 random bits: nothing slower than a plain hash is needed."""
    tenant: TenantName
    """Whose key it is; jobs that one key sent are seen by all keys of its tenant, and by nobody else's."""
    rate: Annotated[float, Field(gt=0, le=1_000_000)] = DEFAULT_RATE
    """Requests a minute; ten seconds' worth may come at once."""
    quota: Annotated[int, Field(ge=1)] | None = None
    """Jobs a day, from midnight to midnight UTC; no limit by default."""
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


def make_key(tenant: str, rate: float = DEFAULT_RATE, quota: int | None = None) -> tuple[ApiKey, str]:
    """Make a key; gives its record, and the text that its holder sends, which is not kept anywhere.

    Raises:
        InvalidJob: a tenant, rate or quota that will not do.
    """
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    try:
        key = ApiKey(id=key_id, sha256=hash_secret(secret), tenant=tenant, rate=rate, quota=quota)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        raise InvalidJob(f"{first['input']!r} will not do", field, first["msg"]) from error
    return key, f"of_{key_id}_{secret}"


def read_key(text: str) -> tuple[str, str]:
    """Read id and hash of the secret from a key as it was sent. Raises KeyRefused for what is none."""
    found = FORM.fullmatch(text)
    if found is None:
        raise KeyRefused("this is no API key", "Authorization", "Send Authorization: Bearer of_…, from omnifleet keys")
    return found["id"], hash_secret(found["secret"])


def hash_secret(secret: str) -> str:
    """Hash a key's secret, in hexadecimal digits."""
    return hashlib.sha256(secret.encode()).hexdigest()
