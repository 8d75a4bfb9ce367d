"""The outbox of callbacks in Redis: each is kept until its receiver has it.

The script that records an outcome (`attempts.FINISH`) also enqueues its callback, so that neither exists without the
other. A worker claims a callback for some seconds and posts it; where that worker is killed, another claims it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from pydantic import ValidationError
from redis import Redis

from ..keys import CALLBACK_KEY, CALLBACKS_KEY
from ..numbered_calls import NUMBERED_CALL, NumberedCalls
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.callback import CallbackDelivery
from ..schema.job_state import unreadable
from ..settings import FleetSettings

# Part of `attempts.FINISH`.
# KEYS 6, 7: callback, callbacks to post. ARGV 7, 8, 9: URL (empty: no callback), delivery id, body.
ENQUEUE_CALLBACK = """
if ARGV[7] ~= '' then
  local now = redis.call('TIME')
  redis.call('DEL', KEYS[6])
  redis.call('HSET', KEYS[6], 'status', 'pending', 'attempts', 0, 'url', ARGV[7], 'id', ARGV[8], 'body', ARGV[9])
  redis.call('EXPIRE', KEYS[6], ARGV[3])
  redis.call('ZADD', KEYS[7], now[1] + now[2] / 1e6, ARGV[5])
end
"""
# Keys of callbacks are made from the job ids in the set. An entry whose callback has expired is removed.
CLAIM = f"""{NUMBERED_CALL}
local waiting = KEYS[2]
local function key_of(job_id) return '{CALLBACK_KEY.format(job_id="")}' .. job_id end
local function claimed(job_id)
  local url, id, body, attempts = unpack(redis.call('HMGET', key_of(job_id), 'url', 'id', 'body', 'attempts'))
  return {{job_id, url, id, body, tonumber(attempts)}}
end
if is_late then return false end
if is_again then return redis.call('HGET', key_of(given), 'claim') == call and claimed(given) end
local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, 100)) do
  if redis.call('HEXISTS', key_of(job_id), 'body') == 1 then
    redis.call('ZREM', waiting, job_id)  -- before what a full Redis would refuse as the first write
    redis.call('ZADD', waiting, now + ARGV[3], job_id)
    redis.call('HSET', key_of(job_id), 'claim', call)
    redis.call('HINCRBY', key_of(job_id), 'attempts', 1)
    remember(job_id)
    return claimed(job_id)
  end
  redis.call('ZREM', waiting, job_id)
end
remember('')
return false
"""
# ARGV: claim, job, status, error, time, seconds until it may be claimed again, attempts to add.
SETTLE = """
if redis.call('HGET', KEYS[2], 'claim') ~= ARGV[1] then return end
redis.call('HDEL', KEYS[2], 'claim')  -- before what a full Redis would refuse as the first write
redis.call('HSET', KEYS[2], 'status', ARGV[3], 'error', ARGV[4], 'at', ARGV[5])
redis.call('HINCRBY', KEYS[2], 'attempts', ARGV[7])
if ARGV[3] == 'pending' then
  local now = redis.call('TIME')
  redis.call('ZADD', KEYS[1], 'XX', now[1] + now[2] / 1e6 + ARGV[6], ARGV[2])
else
  redis.call('HDEL', KEYS[2], 'body', 'url')
  redis.call('ZREM', KEYS[1], ARGV[2])
end
"""


@dataclass(frozen=True)
class ClaimedCallback:
    """A callback that this process has claimed, to post it."""

    claim: str
    job_id: str
    url: str
    delivery_id: str
    body: bytes
    attempts: int
    """Times that it was claimed, this one included."""


class Callbacks:
    """The callbacks of one queue's jobs. Every method may raise BrokerUnavailable.

    What becomes of a claimed callback is recorded only while no other process has claimed it since.
    """

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._waiting = CALLBACKS_KEY.format(queue=queue)
        self._claim = NumberedCalls(redis, CLAIM)
        self._settle = cast(Any, redis.register_script(SETTLE))

    @classmethod
    def connect(cls, settings: FleetSettings) -> Callbacks:
        """Open the outbox in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def claim(self, seconds: float) -> ClaimedCallback | None:
        """Claim the next callback that is due, for so many seconds; None where none is due."""
        claim, claimed = self._claim.make([self._waiting], [seconds])
        if not claimed:
            return None
        job_id, url, delivery_id, body, attempts = claimed
        return ClaimedCallback(claim, job_id.decode(), url.decode(), delivery_id.decode(), body, attempts)

    def delivered(self, claimed: ClaimedCallback) -> None:
        """Record that the receiver has it."""
        self._record(claimed, "delivered")

    def failed(self, claimed: ClaimedCallback, error: str) -> None:
        """Record that no more attempts are made."""
        self._record(claimed, "failed", error)

    def retry(self, claimed: ClaimedCallback, error: str, seconds: float) -> None:
        """Record a failed attempt; it may be claimed again in so many seconds."""
        self._record(claimed, "pending", error, seconds)

    def release_claim(self, claimed: ClaimedCallback, seconds: float) -> None:
        """Give back a claim that was not used; it may be claimed again in so many seconds."""
        self._record(claimed, "pending", "", seconds, -1)

    def _record(
        self,
        claimed: ClaimedCallback,
        status: Literal["pending", "delivered", "failed"],
        error: str = "",
        seconds: float = 0,
        attempts: int = 0,
    ) -> None:
        keys = [self._waiting, CALLBACK_KEY.format(job_id=claimed.job_id)]
        now = datetime.now(UTC).isoformat()
        args = [claimed.claim, claimed.job_id, status, error, now, seconds, attempts]
        with typed_redis_errors():
            self._settle(keys=keys, args=args)


def read_delivery(stored: Mapping[str, str]) -> CallbackDelivery | None:
    """Parse the delivery state from the fields of a callback's hash; None where it is empty. Raises InvalidMessage."""
    if not stored:
        return None
    try:
        return CallbackDelivery.model_validate(
            {("delivery_id" if name == "id" else name): stored[name] for name in stored}
        )
    except ValidationError as error:
        raise unreadable("callback", repr(stored).encode()) from error
