"""What workers tell of themselves every few seconds, and who reads it: `omnifleet top`, `doctor`, the exporter.

Whether a worker lives is judged by Redis's own clock: it notes when it was told, and what is older counts no more.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError
from redis import Redis

from ..keys import WORKER_LIFETIME, WORKER_RECORDS_KEY, WORKERS_SEEN_KEY
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.base import Record, wire_names
from ..settings import FleetSettings

logger = logging.getLogger(__name__)

REPORT = f"""
local now = redis.call('TIME')
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now[1] - {WORKER_LIFETIME})) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now[1] + now[2] / 1e6, ARGV[1])
redis.call('EXPIRE', KEYS[1], {WORKER_LIFETIME})
redis.call('EXPIRE', KEYS[2], {WORKER_LIFETIME})
"""
READ = f"""
local now = redis.call('TIME')
local seen = redis.call('ZRANGEBYSCORE', KEYS[2], now[1] - {WORKER_LIFETIME}, '+inf', 'WITHSCORES')
local found = {{}}
for place = 1, #seen, 2 do
  local record = redis.call('HGET', KEYS[1], seen[place])
  if record then
    found[#found + 1] = {{record, seen[place + 1], tostring(now[1] + now[2] / 1e6 - seen[place + 1])}}
  end
end
return found
"""

WorkerState = Literal["loading", "ready", "draining", "unwell"]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class GpuRecord(Record):
    """The device of a worker as it found it."""

    model_config = ConfigDict(extra="ignore")

    name: str
    memory_used: Count
    """Bytes, by all processes."""
    memory_total: Count
    """Bytes."""
    busy: Share | None = None
    """Part of the driver's last sampling period in which a kernel ran, where it tells."""


class WorkerRecord(Record):
    """One worker process. Fields of later releases are passed over, and their absence in older ones is no fault."""

    model_config = ConfigDict(
        extra="ignore",
        alias_generator=wire_names(reported_at="told_at", slots="places", engine_slots="batch_places"),
    )

    name: str
    """`host:pid`, as in logs and dead letters."""
    version: str
    """Of omnifleet."""
    state: WorkerState
    reason: str | None = None
    """Why it is not ready."""
    started_at: AwareDatetime
    reported_at: AwareDatetime
    """By the worker's own clock."""
    checkpoint: str | None = None
    """Name of the model; None until it is loaded."""
    revision: str | None = None
    """Of the checkpoint."""
    device: str = "cpu"
    gpu: GpuRecord | None = None
    slots: Count
    """Jobs that it holds at once."""
    engine_slots: Count = 0
    """Requests that share an engine step; 0 until the checkpoint is loaded."""
    held: Count = 0
    """Jobs that it holds now."""
    batch: Annotated[float, Field(ge=0)] = 0.0
    """Requests that shared a step, on average since it last told."""
    busy: Share = 0.0
    """Part of the time since it last told in which its engine worked."""
    succeeded: Count = 0
    """Jobs since it started."""
    failed: Count = 0
    """Jobs since it started that ended with an error."""
    retried: Count = 0
    """Deliveries since it started after which the job was tried again."""


@dataclass(frozen=True)
class SeenWorker:
    """A worker that lives."""

    record: WorkerRecord
    age: float
    """Seconds since it told."""
    skew: float
    """Seconds that its clock is ahead of Redis's, less what the telling took on its way."""


@dataclass(frozen=True)
class Capacity:
    """What the workers that are ready can do at once."""

    workers: int = 0
    slots: int = 0
    """Jobs that they hold."""
    engine_slots: int = 0
    """Requests that share their engines' steps."""


class WorkerRegistry:
    """The workers of one queue. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._keys = [WORKER_RECORDS_KEY.format(queue=queue), WORKERS_SEEN_KEY.format(queue=queue)]
        self._report, self._read = (cast(Any, redis.register_script(script)) for script in (REPORT, READ))

    @classmethod
    def connect(cls, settings: FleetSettings) -> WorkerRegistry:
        """Workers in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def report(self, record: WorkerRecord) -> None:
        """Tell that a worker lives, and how it is."""
        with typed_redis_errors():
            self._report(keys=self._keys, args=[record.name, record.model_dump_json()])

    def remove(self, name: str) -> None:
        """Forget a worker that ends."""
        with typed_redis_errors(), self._redis.pipeline() as pipe:
            pipe.hdel(self._keys[0], name)
            pipe.zrem(self._keys[1], name)
            pipe.execute()

    def all(self) -> list[SeenWorker]:
        """Those that live, by their names. A record that cannot be read is logged and left out."""
        with typed_redis_errors():
            found = self._read(keys=self._keys, args=[])
        seen = [one for stored, told, age in found if (one := _seen(stored, float(told), float(age))) is not None]
        return sorted(seen, key=lambda one: one.record.name)

    def capacity(self) -> Capacity:
        """What the fleet can do at once."""
        ready = [one.record for one in self.all() if one.record.state == "ready"]
        return Capacity(len(ready), sum(one.slots for one in ready), sum(one.engine_slots for one in ready))


def _seen(stored: bytes, told: float, age: float) -> SeenWorker | None:
    try:
        record = WorkerRecord.model_validate_json(stored)
    except ValidationError as error:
        logger.warning("a worker's record cannot be read: %s", error, extra={"action": "worker_unreadable"})
        return None
    return SeenWorker(record, age, record.reported_at.timestamp() - told)
