"""How much a fleet can do at once: every worker says that it is there, and how many jobs it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from .names import WORKERS_KEY
from .redis_client import connect_redis, typed_redis_errors
from .settings import FleetSettings

MISSED = 2
"""Leases without a word after which a worker counts no more."""

ANNOUNCE = """
local now = redis.call('TIME')
redis.call('ZADD', KEYS[1], now[1] + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now[1])
redis.call('EXPIRE', KEYS[1], math.ceil(ARGV[2]) + 1)
"""
THERE = """
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. redis.call('TIME')[1], '+inf')
"""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the live workers of a fleet hold together."""

    workers: int
    """Processes; each has a GPU of its own."""
    places: int
    """Jobs that they hold at once."""


class Workforce:
    """The live workers of one queue. Every method may raise BrokerUnavailable.

    Args:
        redis: of the fleet.
        queue: that the workers take jobs from.
        lease: seconds; a worker that is silent for two of them counts no more.
    """

    def __init__(self, redis: Redis, queue: str, lease: float) -> None:
        self._redis = redis
        self._workers = WORKERS_KEY.format(queue=queue)
        self._lifetime = MISSED * lease
        self._announce, self._there = (cast(Any, redis.register_script(script)) for script in (ANNOUNCE, THERE))

    @classmethod
    def connect(cls, settings: FleetSettings) -> Workforce:
        """The workers in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue, settings.lease)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def announce(self, worker: str, places: int) -> None:
        """Say that a worker is there; to be said again before its time is over."""
        with typed_redis_errors():
            self._announce(keys=[self._workers], args=[f"{places} {worker}", self._lifetime])

    def leave(self, worker: str, places: int) -> None:
        """Say that a worker is gone."""
        with typed_redis_errors():
            self._redis.zrem(self._workers, f"{places} {worker}")

    def capacity(self) -> Capacity:
        """What the workers that are there hold together."""
        with typed_redis_errors():
            there = cast(list[bytes], self._there(keys=[self._workers]))
        return Capacity(workers=len(there), places=sum(int(entry.split()[0]) for entry in there))
