"""The registry of live workers: each reports its state every few seconds; `omnifleet top`, `doctor` and others read it.

Redis notes by its own clock when each report came; a worker whose report is older than 15 s counts as gone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError
from redis import Redis

from ..keys import (
    LEASED_KEY,
    QUEUES_KEY,
    TENANT_LEASES_KEY,
    WORKER_LIFETIME,
    WORKER_RECORDS_KEY,
    WORKERS_FAIR_KEY,
    WORKERS_KINDS_KEY,
    WORKERS_SEEN_KEY,
)
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.base import Record, wire_names
from ..schema.capabilities import Capabilities
from ..settings import FleetSettings
from .submit import queue_lists
from .tenants.fair_queue import CHARGE, CHOOSE, ENQUEUE, SPILL

logger = logging.getLogger(__name__)

SPILLED_AT_ONCE = 1000
"""Messages of one list, or of its tenants, that a report hands to older workers."""
# A worker that reports and does not say that it finds tenants' messages, or answers, is of an older release.
REPORT = f"""{ENQUEUE}{CHOOSE}{CHARGE}{SPILL}
local now = redis.call('TIME')
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now[1] - {WORKER_LIFETIME})) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('ZREM', KEYS[2], ARGV[1])  -- before what a full Redis would refuse as the first write
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[2], now[1] + now[2] / 1e6, ARGV[1])
for known = 3, 4 do
  redis.call('ZREMRANGEBYSCORE', KEYS[known], '-inf', now[1] - {WORKER_LIFETIME})
  redis.call('ZADD', KEYS[known], now[1] + now[2] / 1e6, ARGV[1])
end
for place = 1, 4 do redis.call('EXPIRE', KEYS[place], {WORKER_LIFETIME}) end
redis.call('SADD', KEYS[7], ARGV[3])
if #redis.call('ZDIFF', 2, KEYS[2], KEYS[4]) > 0 then
  for lane = 8, #KEYS do spill_answers(KEYS[lane], {SPILLED_AT_ONCE}) end
end
if #redis.call('ZDIFF', 2, KEYS[2], KEYS[3]) > 0 then
  for lane = 8, #KEYS do spill_tenants(KEYS[lane], {SPILLED_AT_ONCE}) end
  forget_ended(KEYS[5], KEYS[6])
end
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
    """The GPU of a worker, as its driver reports it."""

    model_config = ConfigDict(extra="ignore")

    name: str
    memory_used: Count
    """Bytes used by all processes."""
    memory_total: Count
    """Bytes in all."""
    busy: Share | None = None
    """Share of the driver's last sampling period in which a kernel ran; None where the driver does not report it."""


class WorkerRecord(Record):
    """The report of one worker process. Unknown fields, of a later release, are ignored."""

    model_config = ConfigDict(
        extra="ignore",
        alias_generator=wire_names(reported_at="told_at", slots="places", engine_slots="batch_places"),
    )

    name: str
    """`omnifleet@host:pid` by default: the name of its Celery node, as in Flower, logs, metrics and dead letters."""
    version: str
    """Version of omnifleet."""
    state: WorkerState
    reason: str | None = None
    """Why it is not ready."""
    started_at: AwareDatetime
    reported_at: AwareDatetime
    """When it reported, by the worker's own clock."""
    checkpoint: str | None = None
    """Name of the model; None until it is loaded."""
    revision: str | None = None
    """Revision of the checkpoint."""
    capabilities: Capabilities | None = None
    """What the model can do; None until it is loaded, and in reports of older releases."""
    device: str = "cpu"
    gpu: GpuRecord | None = None
    storage: str | None = None
    """URI of its storage; None in reports of older releases."""
    slots: Count
    """Most jobs that it holds at once."""
    engine_slots: Count = 0
    """Most requests that share an engine step; 0 until the checkpoint is loaded."""
    held: Count = 0
    """Jobs that it holds now."""
    batch: Annotated[float, Field(ge=0)] = 0.0
    """Average of the requests that shared a step since its last report."""
    busy: Share = 0.0
    """Share of the time since its last report in which its device worked for the model."""
    host: Share = 0.0
    """Share of that time in which the engine's thread worked; near 1, the host holds the device up."""
    succeeded: Count = 0
    """Jobs that succeeded since it started."""
    failed: Count = 0
    """Jobs that failed since it started."""
    retried: Count = 0
    """Deliveries since it started that ended with a retry."""


@dataclass(frozen=True)
class SeenWorker:
    """A live worker's report, and its age."""

    record: WorkerRecord
    age: float
    """Seconds since the report, by Redis's clock."""
    skew: float
    """Seconds that its clock is ahead of Redis's, less the report's time on the way."""


@dataclass(frozen=True)
class Capacity:
    """What the workers can do at once."""

    workers: int = 0
    """Those that are ready."""
    slots: int = 0
    """Most jobs that they hold."""
    engine_slots: int = 0
    """Most requests that share their engines' steps."""
    alive: int = 0
    """All that live, those included that still load their checkpoint, end or are unwell."""

    def __add__(self, other: Capacity) -> Capacity:
        return Capacity(
            self.workers + other.workers,
            self.slots + other.slots,
            self.engine_slots + other.engine_slots,
            self.alive + other.alive,
        )


class WorkerRegistry:
    """The live workers of one queue. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._queue = queue
        known = (WORKERS_SEEN_KEY, WORKERS_FAIR_KEY, WORKERS_KINDS_KEY)
        keys = (WORKER_RECORDS_KEY, *known, TENANT_LEASES_KEY, LEASED_KEY, QUEUES_KEY)
        self._keys = [*(key.format(queue=queue) for key in keys), *queue_lists(queue)]
        self._report, self._read = (cast(Any, redis.register_script(script)) for script in (REPORT, READ))

    @classmethod
    def connect(cls, settings: FleetSettings) -> WorkerRegistry:
        """Open the registry in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def report(self, record: WorkerRecord) -> None:
        """Store a worker's report, and drop those of workers that are gone."""
        with typed_redis_errors():
            self._report(keys=self._keys, args=[record.name, record.model_dump_json(), self._queue])

    def remove(self, name: str) -> None:
        """Remove a worker that ends."""
        with typed_redis_errors(), self._redis.pipeline() as pipe:
            pipe.hdel(self._keys[0], name)
            for known in self._keys[1:4]:
                pipe.zrem(known, name)
            pipe.execute()

    def all(self) -> list[SeenWorker]:
        """Read the live workers, sorted by name. A report that cannot be read is logged and left out."""
        with typed_redis_errors():
            found = self._read(keys=self._keys[:2], args=[])
        seen = [one for stored, seen_at, age in found if (one := _seen(stored, float(seen_at), float(age))) is not None]
        return sorted(seen, key=lambda one: one.record.name)

    def capacity(self) -> Capacity:
        """Sum up what the workers can do at once."""
        seen = self.all()
        ready = [one.record for one in seen if one.record.state == "ready"]
        slots, engine_slots = sum(one.slots for one in ready), sum(one.engine_slots for one in ready)
        return Capacity(len(ready), slots, engine_slots, alive=len(seen))


def reported_queues(redis: Redis) -> set[str]:
    """Name all queues whose workers ever reported, of all fleets of this Redis.

    Raises:
        BrokerUnavailable: Redis does not answer.
    """
    with typed_redis_errors():
        return {name.decode() for name in cast(set[bytes], redis.smembers(QUEUES_KEY))}


def _seen(stored: bytes, seen_at: float, age: float) -> SeenWorker | None:
    try:
        record = WorkerRecord.model_validate_json(stored)
    except ValidationError as error:
        logger.warning("a worker's record cannot be read: %s", error, extra={"action": "worker_unreadable"})
        return None
    return SeenWorker(record, age, record.reported_at.timestamp() - seen_at)
