"""Connections to Redis, directly or through sentinels, and its errors as omnifleet's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.connection import parse_url
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import Sentinel

from .errors import BrokerUnavailable, InvalidSetting
from .settings import FleetSettings

BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=0.5)


def connect_redis(settings: FleetSettings) -> Redis:
    """Create a thread-safe client of the fleet's Redis; the first operation connects.

    Raises:
        InvalidSetting: the URL is none of Redis.
    """
    return cast(Redis, _connect(settings, Redis, Sentinel, Retry(BACKOFF, 2, (RedisConnectionError,))))


def connect_async_redis(settings: FleetSettings, *, retry: bool = True) -> AsyncRedis:
    """Create a client for one event loop; without `retry` its user has to reconnect after a lost connection."""
    again = AsyncRetry(BACKOFF, 2 if retry else 0, (RedisConnectionError,) if retry else ())
    return cast(AsyncRedis, _connect(settings, AsyncRedis, AsyncSentinel, again))


def _connect(settings: FleetSettings, client: Any, sentinel: Any, retry: Any) -> Any:
    options: dict[str, Any] = {
        "socket_timeout": settings.redis_timeout,
        "socket_connect_timeout": settings.redis_timeout,
        "health_check_interval": 30,
        # A timeout is not retried: redis-py would, nine times over, and `redis_timeout` would not be the limit.
        "retry": retry,
    }
    try:
        if settings.redis_sentinels is None:
            return client.from_url(settings.redis_url, **options)
        sentinels = sentinel(sentinel_addresses(settings), socket_timeout=settings.redis_timeout)
        return sentinels.master_for(settings.redis_master, **options, **_login(settings.redis_url))
    except ValueError as error:
        # The URL may hold a password: it is not repeated.
        problem, remedy = "this is no URL of a Redis", "Use redis://host:6379/0"
        raise InvalidSetting(problem, "OMNIFLEET_REDIS_URL", remedy) from error


def sentinel_addresses(settings: FleetSettings) -> list[tuple[str, int]]:
    """Parse host and port of each sentinel. Raises InvalidSetting for what is none."""
    addresses = [one.strip().rpartition(":") for one in (settings.redis_sentinels or "").split(",")]
    if not all(host and port.isdecimal() for host, _, port in addresses):
        remedy = "Use host:port,host:port"
        raise InvalidSetting("these are no addresses", "OMNIFLEET_REDIS_SENTINELS", remedy)
    return [(host, int(port)) for host, _, port in addresses]


def broker_url(settings: FleetSettings) -> str:
    """Make kombu's URL of the same Redis, or of its sentinels."""
    if settings.redis_sentinels is None:
        return settings.redis_url
    parts = urlsplit(settings.redis_url)
    login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return ";".join(f"sentinel://{login}{host}:{port}{parts.path}" for host, port in sentinel_addresses(settings))


def _login(url: str) -> dict[str, Any]:
    parsed = cast(Any, parse_url)(url)
    return {name: parsed[name] for name in ("username", "password", "db") if name in parsed}


def refuse_eviction(redis: Redis) -> None:
    """Refuse a Redis that evicts records when its memory is full: jobs would vanish without an error.

    Raises:
        InvalidSetting: `maxmemory` is set, and the policy is another than `noeviction`.
        BrokerUnavailable: it does not answer.
    """
    with typed_redis_errors():
        memory = cast(dict[str, Any], redis.info("memory"))
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if int(memory.get("maxmemory", 0)) and policy != "noeviction":
        problem = f"this Redis throws records away when its memory is full (maxmemory-policy {policy})"
        raise InvalidSetting(problem, "OMNIFLEET_REDIS_URL", "Set maxmemory-policy noeviction: it then refuses instead")


@contextmanager
def typed_redis_errors() -> Iterator[None]:
    """Turn Redis errors of the block into BrokerUnavailable, or InvalidSetting where Redis refuses the password."""
    try:
        yield
    except AuthenticationError as error:
        remedy = "Put the right user and password into OMNIFLEET_REDIS_URL"
        raise InvalidSetting("Redis refuses the password", "OMNIFLEET_REDIS_URL", remedy) from error
    except (RedisError, OSError) as error:
        remedy = "Check OMNIFLEET_REDIS_URL and that Redis runs"
        raise BrokerUnavailable(f"Redis does not answer: {error}", "redis_url", remedy) from error
