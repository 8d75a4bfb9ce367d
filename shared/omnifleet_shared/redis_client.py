"""Connections to Redis, directly or through sentinels, and its errors as omnifleet's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar, cast

from redis import ConnectionPool, Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from .errors import InvalidSetting
from .redis_errors import LOST_MASTER, kind_of, typed_redis_error
from .redis_url import redis_address, sentinels
from .settings import FleetSettings

T = TypeVar("T")
BACKOFF = ExponentialWithJitterBackoff(base=0.05, cap=0.5)


KEPT_CONNECTIONS = 16
"""Connections that stay open when nobody uses them; those that a burst of threads has made besides are closed."""


class BurstPool(ConnectionPool):
    """A pool that gives connections back after a burst: redis-py's own keeps all that there ever were at once."""

    def release(self, connection: Any) -> None:
        super().release(connection)
        _close_surplus(self)


class SentinelBurstPool(SentinelConnectionPool):
    """`BurstPool` for the master that sentinels name."""

    def release(self, connection: Any) -> None:
        super().release(connection)
        _close_surplus(self)


def _close_surplus(pool: Any) -> None:
    if len(pool._available_connections) <= KEPT_CONNECTIONS:
        return
    with pool._lock:
        # The one that came back last is the next to be used, so that the surplus is at the other end.
        surplus = pool._available_connections[:-KEPT_CONNECTIONS]
        del pool._available_connections[:-KEPT_CONNECTIONS]
        pool._created_connections -= len(surplus)
    for connection in surplus:
        connection.disconnect()


class MasterLost(RedisConnectionError):
    """The server behind this connection is no master any more: at the same address there may be another by now."""


class MasterRetry(Retry):
    """Tries again on a new connection, also where a server answers that it is no master."""

    def call_with_retry(self, do: Callable[[], T], fail: Callable[[Exception], Any], *args: Any, **kwargs: Any) -> T:
        def call() -> T:
            try:
                return do()
            except ResponseError as error:
                if kind_of(error) not in LOST_MASTER:
                    raise
                raise MasterLost(*error.args) from error

        return super().call_with_retry(call, fail, *args, **kwargs)


class AsyncMasterRetry(AsyncRetry):
    """`MasterRetry` for asyncio."""

    async def call_with_retry(
        self, do: Callable[[], Awaitable[T]], fail: Callable[[Any], Any], *args: Any, **kwargs: Any
    ) -> T:
        async def call() -> T:
            try:
                return await do()
            except ResponseError as error:
                if kind_of(error) not in LOST_MASTER:
                    raise
                raise MasterLost(*error.args) from error

        return await super().call_with_retry(call, fail, *args, **kwargs)


def connect_redis(settings: FleetSettings) -> Redis:
    """Create a thread-safe client of the fleet's Redis; the first operation connects.

    Raises:
        InvalidSetting: the URL is none of Redis.
    """
    retry = MasterRetry(BACKOFF, 2, (RedisConnectionError,))
    client = cast(Redis, _connect(settings, Redis, Sentinel, retry, {"connection_pool_class": SentinelBurstPool}))
    pool = client.connection_pool
    if isinstance(pool, SentinelBurstPool):
        return client
    return Redis.from_pool(BurstPool(connection_class=pool.connection_class, **pool.connection_kwargs))


def connect_async_redis(settings: FleetSettings, *, retry: bool = True) -> AsyncRedis:
    """Create a client for one event loop; without `retry` its user has to reconnect after a lost connection."""
    again = AsyncMasterRetry(BACKOFF, 2 if retry else 0, (RedisConnectionError,) if retry else ())
    return cast(AsyncRedis, _connect(settings, AsyncRedis, AsyncSentinel, again))


def _connect(
    settings: FleetSettings, client: Any, sentinel: Any, retry: Any, master: Mapping[str, Any] | None = None
) -> Any:
    options: dict[str, Any] = {
        **_timeouts(settings),
        "health_check_interval": 30,
        # A timeout is not retried: redis-py would, nine times over, and `redis_timeout` would not be the limit.
        "retry": retry,
    }
    address, watching = redis_address(settings), sentinels(settings)
    if watching is None:
        return client(**address.parameters, **options)
    known = sentinel(watching.hosts, sentinel_kwargs={**_timeouts(settings), **watching.login})
    return known.master_for(settings.redis_master, db=address.database, **address.login, **options, **(master or {}))


def _timeouts(settings: FleetSettings) -> dict[str, float]:
    return {"socket_timeout": settings.redis_timeout, "socket_connect_timeout": settings.redis_timeout}


def broker_configuration(settings: FleetSettings) -> dict[str, Any]:
    """Make kombu's part of Celery's configuration: where the same Redis is, or its sentinels, and how it is spoken to.

    Raises:
        InvalidSetting: as `connect_redis`.
    """
    address, watching = redis_address(settings), sentinels(settings)
    options: dict[str, Any] = {**_timeouts(settings), "socket_keepalive": True, "health_check_interval": 10}
    if watching is None:
        url = address.kombu_url
        options["unix_socket_path"] = address.path
    else:
        url = ";".join(address.sentinel_url(host, port) for host, port in watching.hosts)
        sentinel_kwargs = {**_timeouts(settings), **watching.login}
        options |= {"master_name": settings.redis_master, "sentinel_kwargs": sentinel_kwargs}
    return {
        # The two that win over CELERY_BROKER_URL, which may be in the environment for an app of the user's own.
        "broker_read_url": url,
        "broker_write_url": url,
        # kombu opens a plain connection without it, whatever the scheme says, where a transport is named.
        "broker_use_ssl": address.tls or False,
        "broker_transport_options": options,
    }


def refuse_eviction(redis: Redis) -> None:
    """Refuse a Redis that evicts records when its memory is full: jobs would vanish without an error.

    Raises:
        InvalidSetting: `maxmemory` is set, and the policy is another than `noeviction`.
        BrokerUnavailable: it does not answer.
        BrokerRefused: it does not let this user ask.
    """
    with typed_redis_errors():
        memory = cast(dict[str, Any], redis.info("memory"))
    policy = str(memory.get("maxmemory_policy", "noeviction"))
    if int(memory.get("maxmemory", 0)) and policy != "noeviction":
        problem = f"this Redis throws records away when its memory is full (maxmemory-policy {policy})"
        raise InvalidSetting(problem, "OMNIFLEET_REDIS_URL", "Set maxmemory-policy noeviction: it then refuses instead")


class TypedRedisErrors:
    """See `typed_redis_errors`. A class, which costs a fifth of a generator: each trip to Redis is inside of one."""

    def __init__(self, meanwhile: str) -> None:
        self._meanwhile = meanwhile

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, (RedisError, OSError)):
            raise typed_redis_error(error, self._meanwhile) from error


def typed_redis_errors(meanwhile: str = "") -> TypedRedisErrors:
    """Raise BrokerUnavailable or BrokerRefused for what Redis does in the block; see `redis_errors`."""
    return TypedRedisErrors(meanwhile)
