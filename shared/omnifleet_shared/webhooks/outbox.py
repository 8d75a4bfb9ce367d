"""Callbacks that are to be posted, kept in Redis until a receiver has them.

The wish is written by the script that records the outcome (`attempts.FINISH`), so that neither is there without the
other. Whichever worker claims it posts it under a lease; that of a worker that was killed is claimed again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic import ValidationError
from redis import Redis

from ..keys import CALLBACK_KEY, CALLBACKS_KEY
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.callback import CallbackDelivery
from ..schema.job_state import unreadable
from ..settings import FleetSettings

# Of FINISH. KEYS 6, 7: callback, callbacks to post. ARGV 7, 8, 9: URL (empty: no callback), delivery id, body.
ENQUEUE_CALLBACK = """
if ARGV[7] ~= '' then
  local now = redis.call('TIME')
  redis.call('DEL', KEYS[6])
  redis.call('HSET', KEYS[6], 'status', 'pending', 'attempts', 0, 'url', ARGV[7], 'id', ARGV[8], 'body', ARGV[9])
  redis.call('EXPIRE', KEYS[6], ARGV[3])
  redis.call('ZADD', KEYS[7], now[1] + now[2] / 1e6, ARGV[5])
end
"""
# Names of callbacks are made from the job ids in the set. An entry whose callback has expired is dropped.
CLAIM = f"""
local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
  local callback = '{CALLBACK_KEY.format(job_id="")}' .. job_id
  local url, id, body = unpack(redis.call('HMGET', callback, 'url', 'id', 'body'))
  if body then
    redis.call('ZADD', KEYS[1], now + ARGV[2], job_id)
    redis.call('HSET', callback, 'claim', ARGV[1])
    return {{job_id, url, id, body, redis.call('HINCRBY', callback, 'attempts', 1)}}
  end
  redis.call('ZREM', KEYS[1], job_id)
end
return false
"""
# ARGV: claim, job, status, error, time, seconds until it may be claimed again, attempts to add.
SETTLE = """
if redis.call('HGET', KEYS[2], 'claim') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'status', ARGV[3], 'error', ARGV[4], 'at', ARGV[5])
redis.call('HINCRBY', KEYS[2], 'attempts', ARGV[7])
redis.call('HDEL', KEYS[2], 'claim')
if ARGV[3] == 'pending' then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[1], 'XX', now[1] + now[2] / 1e6 + ARGV[6], ARGV[2])
else
  redis.call('HDEL', KEYS[2], 'body', 'url')
  redis.call('ZREM', KEYS[1], ARGV[2])
end
return 1
"""


@dataclass(frozen=True)
class ClaimedCallback:
    """A callback that this process is to post."""

    claim: str
    job_id: str
    url: str
    delivery_id: str
    body: bytes
    attempts: int
    """Times that it was claimed to be posted, this one included."""


class Callbacks:
    """The callbacks of one queue. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._waiting = CALLBACKS_KEY.format(queue=queue)
        self._claim, self._settle = (cast(Any, redis.register_script(script)) for script in (CLAIM, SETTLE))

    @classmethod
    def connect(cls, settings: FleetSettings) -> Callbacks:
        """Callbacks in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def claim(self, seconds: float) -> ClaimedCallback | None:
        """The next callback that is due, for so many seconds this process's alone; None where none is."""
        claim = uuid.uuid4().hex
        with typed_redis_errors():
            claimed = self._claim(keys=[self._waiting], args=[claim, seconds])
        if not claimed:
            return None
        job_id, url, delivery_id, body, attempts = claimed
        return ClaimedCallback(claim, job_id.decode(), url.decode(), delivery_id.decode(), body, attempts)

    def delivered(self, claimed: ClaimedCallback) -> bool:
        """The receiver has it; False where the claim went to another process meanwhile."""
        return self._settled(claimed, "delivered")

    def failed(self, claimed: ClaimedCallback, error: str) -> bool:
        """It is given up."""
        return self._settled(claimed, "failed", error)

    def retry(self, claimed: ClaimedCallback, error: str, seconds: float) -> bool:
        """It may be claimed again in so many seconds."""
        return self._settled(claimed, "pending", error, seconds)

    def release_claim(self, claimed: ClaimedCallback, seconds: float) -> bool:
        """It was not posted at all, and may be claimed again in so many seconds."""
        return self._settled(claimed, "pending", "", seconds, -1)

    def _settled(
        self,
        claimed: ClaimedCallback,
        status: Literal["pending", "delivered", "failed"],
        error: str = "",
        seconds: float = 0,
        attempts: int = 0,
    ) -> bool:
        keys = [self._waiting, CALLBACK_KEY.format(job_id=claimed.job_id)]
        now = datetime.now(UTC).isoformat()
        args = [claimed.claim, claimed.job_id, status, error, now, seconds, attempts]
        with typed_redis_errors():
            return bool(self._settle(keys=keys, args=args))


def read_delivery(stored: Mapping[str, str]) -> CallbackDelivery | None:
    """How a callback stands, from the fields of its hash; None where there are none. Raises InvalidMessage."""
    if not stored:
        return None
    try:
        return CallbackDelivery.model_validate(
            {("delivery_id" if name == "id" else name): stored[name] for name in stored}
        )
    except ValidationError as error:
        raise unreadable("callback", repr(stored).encode()) from error
