"""Idempotency keys: under one key the same request is one job, and another request is a conflict."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import IdempotencyConflict
from ..keys import MODEL
from .jobs import Job

NOT_COMPARED = {"schema_version", "job_id", "submitted_at", "deadline", "priority"}
"""Fields of a job that two calls of one request do not share, or that change nothing but the time."""
DIGEST = 16
"""Characters of a field's digest."""


@dataclass(frozen=True)
class IdempotencyKey:
    """A key, and what it was given with."""

    key: str
    request: Mapping[str, str] = field(default_factory=dict[str, str])
    """A digest of each field of the request, by the field's name; empty where nothing is to be compared: the key itself
    is made of the request."""

    def compare(self, earlier: Mapping[str, str], job_id: str) -> None:
        """Raise IdempotencyConflict where the earlier request of this key, that of job `job_id`, was another one."""
        names = self.request.keys() | earlier.keys() if self.request and earlier else ()
        if differs := sorted(name for name in names if self.request.get(name) != earlier.get(name)):
            raise self.conflict(differs, job_id)

    def conflict(self, differs: Iterable[str], job_id: str) -> IdempotencyConflict:
        """Make the error for a request that differs in these fields from that of job `job_id`."""
        names = list(differs)
        problem = f"the key {self.key[:80]!r} is another request's, which differs in {', '.join(names)}"
        remedy = "Give every request a key of its own; the same request may be sent again under its key"
        return IdempotencyConflict(problem, "idempotency_key", remedy, {"differs": names, "job_id": job_id})


def wished_model(pinned: str | None) -> str | list[str]:
    """Say which model a caller wishes, as it counts for keys. Any is what Audio-Omni was when there was no other."""
    return MODEL if pinned is None else [pinned]


def digest_request(job: Job, pinned: str | None = None, *, has_seed: bool) -> dict[str, str]:
    """Make a digest of each field that the caller decided, by its name.

    Args:
        job: of the request.
        pinned: name of the model that the caller insists on; None where any will do.
        has_seed: whether the request names a seed; one that was drawn is no part of it.
    """
    fields = job.model_dump(mode="json", exclude=NOT_COMPARED if has_seed else NOT_COMPARED | {"seed"})
    task: dict[str, Any] = fields.pop("task")
    named = fields | {"model": wished_model(pinned), "task": task.pop("name")} | task
    return {name: _digest(value) for name, value in named.items()}


def _digest(value: object) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:DIGEST]
