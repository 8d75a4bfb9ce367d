"""The API keys in Redis, for the command line: made, listed and revoked."""

from __future__ import annotations

from typing import cast

from omnifleet_shared.errors import KeyRefused
from omnifleet_shared.keys import API_KEYS_KEY, API_QUOTA_KEY, API_RATE_KEY
from omnifleet_shared.redis_client import connect_redis, typed_redis_errors
from omnifleet_shared.settings import FleetSettings
from redis import Redis

from .api_key import ApiKey


class KeyStore:
    """The API keys of one Redis. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @classmethod
    def connect(cls, settings: FleetSettings) -> KeyStore:
        """Open the keys in the Redis of these settings."""
        return cls(connect_redis(settings))

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def add(self, key: ApiKey) -> None:
        """Keep a key: from now on it opens the gateway."""
        with typed_redis_errors():
            self._redis.hset(API_KEYS_KEY, key.id, key.model_dump_json())

    def all(self) -> list[ApiKey]:
        """Read the keys, the oldest first."""
        with typed_redis_errors():
            stored = cast(list[bytes], self._redis.hvals(API_KEYS_KEY))
        return sorted(map(ApiKey.model_validate_json, stored), key=lambda key: key.created_at)

    def revoke(self, key_id: str) -> None:
        """Delete a key: the next request with it is refused. Raises KeyRefused where there is none of that id."""
        with typed_redis_errors(), self._redis.pipeline() as pipe:
            pipe.hdel(API_KEYS_KEY, key_id)
            pipe.unlink(API_RATE_KEY.format(key_id=key_id), API_QUOTA_KEY.format(key_id=key_id))
            removed, _ = pipe.execute()
        if not removed:
            raise KeyRefused(f"there is no key {key_id[:80]!r}", "key_id", "omnifleet keys list shows those there are")
