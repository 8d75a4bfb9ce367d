"""The base class of all records on the wire, and types that they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from ..errors import InvalidSetting
from ..keys import MODEL_NAME

JobId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Letters, digits, `_` and `-`: a job id becomes part of storage keys and Redis keys."""

TenantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""Letters, digits, `_`, `.` and `-`: a tenant becomes part of Redis keys."""
_TENANT: TypeAdapter[str] = TypeAdapter(TenantName)

ModelName = Annotated[str, StringConstraints(pattern=f"^{MODEL_NAME}$")]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]
"""1 to 10,000 characters; white space around them is stripped."""


def wire_names(**names: str) -> Callable[[str], str]:
    """Make the alias generator of a record whose fields, named first, have other names on the wire."""
    return lambda name: names.get(name, name)


class Record(BaseModel):
    """Base of all records: frozen, refuses unknown fields and numbers that are not finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        validate_by_name=True,
        serialize_by_alias=True,
    )


def check_tenant(name: str) -> str:
    """Return the name of a tenant. Raises InvalidSetting for what is none."""
    try:
        return _TENANT.validate_python(name)
    except ValidationError as error:
        remedy = "Use 1 to 64 letters, digits, '_', '.' and '-', a letter or digit first"
        raise InvalidSetting(f"{str(name)[:80]!r} is no name of a tenant", "tenant", remedy) from error


class Media(Record):
    """A file in object storage that a job reads."""

    uri: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    """`s3://bucket/key` or `file:///path`, inside the configured storage."""
    sha256: Sha256 | None = None
    """SHA-256 of the bytes, which the worker checks after fetching; None where not known."""
    bytes: Annotated[int, Field(ge=0)] | None = None
    """Size in bytes; None where not known."""
