"""One way to connect to Redis, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from .errors import BrokerUnavailable, InvalidSetting
from .settings import FleetSettings


def connect_redis(settings: FleetSettings) -> Redis:
    """A thread-safe client of the fleet's Redis; the first operation connects.

    Raises:
        InvalidSetting: the URL is none of Redis.
    """
    try:
        return Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            settings.redis_url,
            socket_timeout=settings.redis_timeout,
            socket_connect_timeout=settings.redis_timeout,
            health_check_interval=30,
            # A timeout is not retried: redis-py would, nine times over, and `redis_timeout` would not be the limit.
            retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 2, (RedisConnectionError,)),
        )
    except ValueError as error:
        # The URL may hold a password: it is not repeated.
        problem, remedy = "this is no URL of a Redis", "Use redis://host:6379/0"
        raise InvalidSetting(problem, "OMNIFLEET_REDIS_URL", remedy) from error


@contextmanager
def typed_redis_errors() -> Iterator[None]:
    """Raise what Redis does in the block as BrokerUnavailable, or InvalidSetting where it refuses the password."""
    try:
        yield
    except AuthenticationError as error:
        remedy = "Put the right user and password into OMNIFLEET_REDIS_URL"
        raise InvalidSetting("Redis refuses the password", "OMNIFLEET_REDIS_URL", remedy) from error
    except (RedisError, OSError) as error:
        remedy = "Check OMNIFLEET_REDIS_URL and that Redis runs"
        raise BrokerUnavailable(f"Redis does not answer: {error}", "redis_url", remedy) from error
