"""What is needed of the storage: the objects that messages name, and results whose records are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

from omnifleet_shared.broker.message_snapshot import MessageSnapshot
from omnifleet_shared.errors import ForeignURI, InvalidSetting
from omnifleet_shared.job_state.queries import parts_query
from omnifleet_shared.redis_client import typed_redis_errors
from omnifleet_shared.schema.job_state import STATE_KEY, parse_record
from omnifleet_shared.storage import Storage
from redis import Redis

_NAMES_PART = re.compile(r"results/[^/]+/\d+\.\d+\.wav")
ENDED = ("SUCCESS", "FAILURE", "REVOKED")
"""Celery states after which nothing more happens to a job."""

Reason = Literal["job", "result", "undecided", "journal"]
"""A job without an outcome, or dead-lettered, needs the object; the record of a job's result names it; the job that it
belongs to is not known to have ended; the journal of a batch names it."""


@dataclass(frozen=True)
class Need:
    """Why an object is needed."""

    reason: Reason
    job_id: str | None = None


class NeededObjects:
    """Tells why objects are needed. Messages are read once, all as they were at one moment; results when it is asked.

    Args:
        redis: client of the fleet's Redis.
        storage: of the fleet.
        queue: a queue that is expected in this Redis.
        leeway: seconds for which a job's inputs are needed after the time that its message tells: clocks differ.

    Raises, as its methods do:
        BrokerUnavailable: Redis.
        InvalidMessage: something in Redis cannot be read, and nobody knows what it needs.
        InvalidSetting: no job was ever sent to the queue in this Redis: it is none of this fleet's.
    """

    def __init__(self, redis: Redis, storage: Storage, queue: str, leeway: float) -> None:
        self._redis = cast(Any, redis)
        self._storage = storage
        self._unfinished: set[str] = set()
        self._named: dict[str, Need] = {}
        with closing(MessageSnapshot(redis)) as snapshot:
            if queue not in snapshot.queues:
                problem = f"no job was ever sent to the queue {queue!r} in this Redis"
                raise InvalidSetting(
                    problem, "OMNIFLEET_REDIS_URL", "Name the Redis of the fleet whose storage this is"
                )
            self._read(snapshot, leeway)

    def add_results(self, uris: Iterable[str]) -> None:
        """Count results that a journal names as needed."""
        self._named |= {self._storage.key(uri): Need("journal") for uri in uris}

    def needs(self, keys: Sequence[str]) -> dict[str, Need]:
        """Tell why each of these objects is needed; those that nothing needs are left out."""
        owners = {key: owner for key in keys if (owner := _owner(key)) is not None}
        states = self._states(sorted(set(owners.values()) - self._unfinished))
        found = {key: need for key, owner in owners.items() if (need := self._of_owner(key, owner, states)) is not None}
        return found | {key: self._named[key] for key in keys if key in self._named}

    def _read(self, snapshot: MessageSnapshot, leeway: float) -> None:
        over = self._now() - timedelta(seconds=leeway)
        for message in snapshot.messages():
            self._unfinished.add(message.job_id)
            if message.inputs_until is None or message.inputs_until > over:
                need = Need("job", message.job_id)
                self._named |= dict.fromkeys(self._keys(message.content), need)

    def _now(self) -> datetime:
        with typed_redis_errors():
            seconds, _ = self._redis.time()
        return datetime.fromtimestamp(seconds, UTC)

    def _keys(self, content: object) -> Iterator[str]:
        """Find all URIs inside the storage, in whatever field: newer releases may have fields that this one has not."""
        for text in _texts(content):
            if "://" in text:
                try:
                    yield self._storage.key(text)
                except ForeignURI:
                    continue

    def _states(self, job_ids: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        if not job_ids:
            return {}
        with typed_redis_errors():
            stored = self._redis.mget([STATE_KEY.format(job_id=job_id) for job_id in job_ids])
        return {job_id: record and parse_record(record) for job_id, record in zip(job_ids, stored, strict=True)}

    def _of_owner(self, key: str, job_id: str, states: Mapping[str, dict[str, Any] | None]) -> Need | None:
        if job_id in self._unfinished:
            return Need("job", job_id)
        if (record := states[job_id]) is None:
            return None
        if record.get("status") not in ENDED:
            return Need("undecided", job_id)
        return Need("result", job_id) if key in self._keys(record) or self._is_part(key, job_id) else None

    def _is_part(self, key: str, job_id: str) -> bool:
        """Whether the job gave it out as a part, which whoever reads its stream may still need."""
        if not _NAMES_PART.fullmatch(key):
            return False
        query = parts_query(job_id, after=0)
        with typed_redis_errors():
            parts = query.read(self._redis.execute_command(*query.command))
        return any(part.audio is not None and self._storage.key(part.audio.uri) == key for part in parts)


def _owner(key: str) -> str | None:
    """Read the id of the job that made an object; None for an input."""
    folder, _, name = key.partition("/")
    if folder == "results":
        return name.partition("/")[0]
    return name.partition(".")[0] if folder == "parts" else None


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        yield from _texts(list(cast(Mapping[object, object], content).values()))
    elif isinstance(content, list | tuple):
        for value in cast(Sequence[object], content):
            yield from _texts(value)
