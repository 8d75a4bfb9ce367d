"""Keys by which the same request twice is one job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.keys import SCHEMA_VERSION
from omnifleet_shared.schema.idempotency import IdempotencyKey, digest_request, wished_model
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.model_card import AUDIO_OMNI

AUTO = "auto"
LONGEST_KEY = 200
"""Characters of a key."""

NOT_CONTENT = {"schema_version", "job_id", "submitted_at", "deadline", "priority", "callback"}
"""Fields of a job that do not change what it makes."""


def idempotency_key(job: Job, options: Mapping[str, Any], pinned: str | None = None) -> IdempotencyKey | None:
    """Return the caller's key, or for `auto` one made of the job's content.

    Args:
        job: as the caller wishes it, before a model is chosen: a repeat may be routed elsewhere, and is one job.
        options: of the call.
        pinned: the model that the caller insists on; None where any will do.

    Raises:
        InvalidJob: it is no key.
    """
    key = options.get("idempotency_key")
    if key is None:
        return None
    if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
        remedy = f'Give 1 to {LONGEST_KEY} characters, or "{AUTO}"'
        raise InvalidJob(f"{str(key)[:80]!r} is no key", "idempotency_key", remedy)
    has_seed = options.get("seed") is not None
    if key == AUTO:
        return IdempotencyKey(_content_key(job, pinned, has_seed=has_seed))
    return IdempotencyKey(key, digest_request(job, pinned, has_seed=has_seed))


def _content_key(job: Job, pinned: str | None, *, has_seed: bool) -> str:
    # A seed that was drawn says nothing about the request: any result will do.
    left_out = NOT_CONTENT if has_seed else NOT_CONTENT | {"seed"}
    content = job.model_dump(mode="json", exclude=left_out) | {"revision": AUDIO_OMNI.revision}
    # As it was when every job was of one version: keys outlive an upgrade.
    content |= {"schema_version": SCHEMA_VERSION, "model": wished_model(pinned)}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
