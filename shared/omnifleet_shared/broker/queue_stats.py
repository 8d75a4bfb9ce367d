"""Statistics of a queue by priority and by tenant: jobs that wait, jobs under lease, and the age of the oldest.

One script reads it all at one moment. Its cost grows with the jobs under lease, with the suspects and with the tenants
that have jobs, never with the other jobs that wait.
"""

from __future__ import annotations

import base64
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, cast

from redis import Redis

from ..keys import BROKER_PRIORITY, DEAD_KEY, LEASED_KEY, POSTPONED_KEY, SUSPECTS_KEY, TENANT_USE_KEY, THROUGHPUT_KEY
from ..redis_client import connect_redis, typed_redis_errors
from ..settings import FleetSettings
from .kinds import BESIDE
from .submit import queue_lists
from .tenants.fair_queue import LANES, TODAY

OLDEST_AMONG = 16
"""Messages at the end of a list, where the next one is taken, among which the oldest is searched: a message that came
back after a lease stands before older ones."""

READ_STATS = f"""{LANES}{TODAY}{BESIDE}
local leased, postponed, dead, finished, suspects = unpack(KEYS, 1, 5)
local now = redis.call('TIME')
local function origin_of(kept)
  local origin, rest = string.match(kept, '^([^\\n]*)\\n(.*)$')
  return origin == suspects and string.match(rest, '^[^\\n]*') or origin
end
local function count(messages)
  local counts = {{}}
  for _, kept in ipairs(messages) do
    local origin = kept and origin_of(kept)
    if origin then counts[origin] = (counts[origin] or 0) + 1 end
  end
  return counts
end
local all_leased = redis.call('HVALS', leased)
local held = count(all_leased)
local later = {{}}
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', postponed, now[1] + now[2] / 1e6, '+inf')) do
  later[#later + 1] = redis.call('HGET', leased, tag)
end
later = count(later)
local alone = redis.call('LRANGE', suspects, 0, -1)
local suspected = count(alone)
local levels = {{}}
for place = 6, #KEYS do
  local list = KEYS[place]
  local next_ones = redis.call('LRANGE', list, -{OLDEST_AMONG}, -1)
  for next = math.max(1, #alone - {OLDEST_AMONG - 1}), #alone do
    if origin_of(alone[next]) == list then next_ones[#next_ones + 1] = string.sub(alone[next], #list + 2) end
  end
  local answers = beside(list)
  for _, next in ipairs(redis.call('LRANGE', answers, -{OLDEST_AMONG}, -1)) do next_ones[#next_ones + 1] = next end
  local waiting, queues = redis.call('LLEN', list) + redis.call('LLEN', answers) + (suspected[list] or 0), {{}}
  for _, place in ipairs({{list, answers}}) do
    for _, tenant in ipairs(redis.call('ZRANGE', fair(place, ':waiting'), 0, -1)) do
      local jobs = redis.call('LLEN', jobs_of(place, tenant))
      waiting = waiting + jobs
      queues[#queues + 1] = {{tenant, jobs, redis.call('LINDEX', jobs_of(place, tenant), -1)}}
    end
  end
  levels[#levels + 1] = {{waiting, held[list] or 0, later[list] or 0, next_ones, queues}}
end
local running = {{}}
for _, kept in ipairs(all_leased) do
  local tenant = tenant_of(kept)
  if tenant then running[#running + 1] = tenant end
end
local use = {{redis.call('HGETALL', '{TENANT_USE_KEY}'), redis.call('HGETALL', today())}}
local minute = redis.call('GET', finished .. (math.floor(now[1] / 60) - 1))
return {{now, redis.call('HLEN', dead), tonumber(minute or 0), #alone, levels, running, use}}
"""


@dataclass(frozen=True)
class PriorityStats:
    """Statistics of the jobs of one priority."""

    priority: str
    waiting: int
    """Jobs in the queue, suspects included."""
    leased: int
    """Jobs that workers hold, and retries that wait for their backoff."""
    postponed: int
    """Retries alone that wait for their backoff."""
    oldest_age: float
    """Seconds since the submission of the oldest job that waits, found among the next ones; 0 where none waits."""


@dataclass(frozen=True)
class TenantStats:
    """Statistics of one tenant's jobs, of all priorities."""

    tenant: str
    waiting: int = 0
    """Jobs in the queue, without suspects."""
    leased: int = 0
    """Jobs that workers hold, and retries that wait for their backoff."""
    oldest_age: float = 0.0
    """Seconds since the submission of its next job, at the priority at which that is longest; 0 where none waits."""
    gpu_seconds: float = 0.0
    """GPU-seconds that its jobs took so far, in all queues of this Redis."""
    gpu_seconds_today: float = 0.0
    """Those of today (UTC)."""


@dataclass(frozen=True)
class QueueStats:
    """Statistics of a queue at one moment."""

    queue: str
    priorities: tuple[PriorityStats, ...]
    """Most urgent priority first."""
    dead: int
    """Jobs that are dead-lettered."""
    finished: int
    """Jobs that ended in the last full minute."""
    suspects: int
    """Jobs that wait to run alone, because their worker was lost."""
    tenants: tuple[TenantStats, ...] = ()
    """Sorted by name: those that have, or ever had, jobs."""


class QueueStatsReader:
    """Reads the statistics of one queue."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self._queue = queue
        self._priorities = sorted(BROKER_PRIORITY, key=lambda name: BROKER_PRIORITY[name])
        keys = (LEASED_KEY, POSTPONED_KEY, DEAD_KEY, THROUGHPUT_KEY, SUSPECTS_KEY)
        self._keys = [*(key.format(queue=queue) for key in keys), *queue_lists(queue)]
        self._read = cast(Any, redis.register_script(READ_STATS))

    @classmethod
    def connect(cls, settings: FleetSettings) -> QueueStatsReader:
        """Read the queue in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue)

    def read(self) -> QueueStats:
        """Read the statistics of this moment. Raises BrokerUnavailable."""
        with typed_redis_errors():
            time, dead, finished, suspects, priorities, running, use = self._read(keys=self._keys, args=[])
        now = int(time[0]) + int(time[1]) / 1e6
        named = zip(self._priorities, priorities, strict=True)
        return QueueStats(
            queue=self._queue,
            priorities=tuple(
                PriorityStats(name, waiting, leased, postponed, _oldest_age([*next_ones, *_firsts(queues)], now))
                for name, (waiting, leased, postponed, next_ones, queues) in named
            ),
            dead=dead,
            finished=finished,
            suspects=suspects,
            tenants=_tenants([level[4] for level in priorities], running, use, now),
        )


def _firsts(queues: Sequence[Any]) -> list[bytes]:
    """Each tenant's next message."""
    return [message for _, _, message in queues]


def _tenants(
    levels: Sequence[Any], running: Sequence[bytes], use: Sequence[Any], now: float
) -> tuple[TenantStats, ...]:
    leased = Counter(tenant.decode() for tenant in running)
    in_all, today = (_numbers(one) for one in use)
    waiting, firsts = Counter[str](), defaultdict[str, list[bytes]](list)
    for name, jobs, message in chain.from_iterable(levels):
        waiting[name.decode()] += jobs
        firsts[name.decode()].append(message)

    def stats(name: str) -> TenantStats:
        used = (in_all.get(name, 0.0), today.get(name, 0.0))
        return TenantStats(name, waiting[name], leased[name], _oldest_age(firsts[name], now), *used)

    return tuple(stats(name) for name in sorted({*waiting, *leased, *in_all}))


def _numbers(fields: Sequence[bytes]) -> dict[str, float]:
    """Read a hash as a script gives it: name, value, name, …"""
    return {name.decode(): float(value) for name, value in zip(fields[::2], fields[1::2], strict=True)}


def _oldest_age(messages: Sequence[bytes], now: float) -> float:
    times = [time for message in messages if (time := submitted_at(message)) is not None]
    return max(0.0, now - min(times)) if times else 0.0


def submitted_at(message: bytes) -> float | None:
    """Give the Unix time at which a message's job was submitted; None for what is no message of a job."""
    try:
        _, kwargs, _ = json.loads(base64.b64decode(json.loads(message)["body"]))
        return datetime.fromisoformat(kwargs["job"]["submitted_at"]).timestamp()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
