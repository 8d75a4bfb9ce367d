"""Statistics of a queue by priority: jobs that wait, jobs under lease, and the age of the oldest.

One script reads it all at one moment. Its cost grows with the jobs under lease and with the suspects, never with the
other jobs that wait.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from redis import Redis

from ..keys import BROKER_PRIORITY, DEAD_KEY, LEASED_KEY, POSTPONED_KEY, SUSPECTS_KEY, THROUGHPUT_KEY
from ..redis_client import connect_redis, typed_redis_errors
from ..settings import FleetSettings
from .submit import queue_lists

OLDEST_AMONG = 16
"""Messages at the end of a list, where the next one is taken, among which the oldest is searched: a message that came
back after a lease stands before older ones."""

READ_STATS = f"""
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
local held = count(redis.call('HVALS', leased))
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
  local waiting = redis.call('LLEN', list) + (suspected[list] or 0)
  levels[#levels + 1] = {{waiting, held[list] or 0, later[list] or 0, next_ones}}
end
local minute = redis.call('GET', finished .. (math.floor(now[1] / 60) - 1))
return {{now, redis.call('HLEN', dead), tonumber(minute or 0), #alone, levels}}
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
            time, dead, finished, suspects, priorities = self._read(keys=self._keys, args=[])
        now = int(time[0]) + int(time[1]) / 1e6
        named = zip(self._priorities, priorities, strict=True)
        return QueueStats(
            queue=self._queue,
            priorities=tuple(
                PriorityStats(name, waiting, leased, postponed, _oldest_age(next_ones, now))
                for name, (waiting, leased, postponed, next_ones) in named
            ),
            dead=dead,
            finished=finished,
            suspects=suspects,
        )


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
