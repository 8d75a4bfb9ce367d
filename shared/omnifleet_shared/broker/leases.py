"""Leases: a message that a worker takes is its own for some seconds, and goes back to the queue unless it is renewed.

Kombu pops a message and writes down that it is unacknowledged in two steps: a message is lost when its worker is
killed, stopped or cut off in between. Here one script does both. A lease ends by Redis's own clock, so that no worker's
clock matters, and each time a message is taken it gets a new tag: a worker that lost a lease can neither renew nor
acknowledge the lease of the next worker. Every script may run again, at once or late: it then changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from ..keys import LEASED_KEY, LEASES_KEY, POSTPONED_KEY, WAKE_KEY
from ..numbered_calls import NUMBERED_CALL, NumberedCalls
from ..redis_client import connect_redis, typed_redis_errors
from ..settings import FleetSettings

FAIR_TURN = 8
"""One in so many messages is taken from the last list first, so that the first list cannot starve it."""

# The call's id is the tag. RPOP comes first: Redis refuses the first write of a script when memory is full, and none
# after it.
TAKE = f"""{NUMBERED_CALL}
local leases, leased = KEYS[2], KEYS[3]
if is_late then return false end
if is_again then
  local kept = redis.call('HGET', leased, call)
  return kept and {{string.match(kept, '^([^\\n]*)\\n(.*)$')}}
end
local now = redis.call('TIME')
for place = 4, #KEYS do
  local message = redis.call('RPOP', KEYS[place])
  if message then
    redis.call('HSET', leased, call, KEYS[place] .. '\\n' .. message)
    redis.call('ZADD', leases, now[1] + now[2] / 1e6 + ARGV[3], call)
    remember('')
    return {{KEYS[place], message}}
  end
end
remember('')
return false
"""
RENEW = """
local now = redis.call('TIME')
local lost = {}
for place = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[place]) then
    redis.call('ZADD', KEYS[1], 'XX', now[1] + now[2] / 1e6 + ARGV[1], ARGV[place])
  else
    lost[#lost + 1] = ARGV[place]
  end
end
return lost
"""
# A wait that goes on already is this very one.
POSTPONE = """
local now = redis.call('TIME')
local over = now[1] + now[2] / 1e6 + ARGV[1]
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return end
if tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or 0) > now[1] + now[2] / 1e6 then return end
redis.call('ZADD', KEYS[1], 'XX', over, ARGV[2])
redis.call('ZADD', KEYS[2], over, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now[1])
"""
RELEASE = """
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
"""
RECOVER = """
local now = redis.call('TIME')
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] + now[2] / 1e6, 'LIMIT', 0, 100)
for _, tag in ipairs(over) do
  local kept = redis.call('HGET', KEYS[2], tag)
  if kept then
    local cut = string.find(kept, '\\n', 1, true)
    redis.call('RPUSH', string.sub(kept, 1, cut - 1), string.sub(kept, cut + 1))
    redis.call('LPUSH', KEYS[3], '1')
  end
  redis.call('HDEL', KEYS[2], tag)
  redis.call('ZREM', KEYS[1], tag)
end
return #over
"""


@dataclass(frozen=True)
class LeasedMessage:
    """A message under lease."""

    tag: str
    origin: str
    """Key of the list that it was taken from."""
    message: bytes


class Leases:
    """The leases of one queue. Every method may raise BrokerUnavailable.

    Args:
        redis: client of the fleet's Redis.
        queue: name of the queue whose messages are leased.
        seconds: length of a lease unless it is renewed.
    """

    def __init__(self, redis: Redis, queue: str, seconds: float) -> None:
        self.queue = queue
        self.seconds = seconds
        self._redis = redis
        self._leases = LEASES_KEY.format(queue=queue)
        self._leased = LEASED_KEY.format(queue=queue)
        self._postponed = POSTPONED_KEY.format(queue=queue)
        self._wake = WAKE_KEY.format(queue=queue)
        self._taken = 0
        self._take = NumberedCalls(redis, TAKE)
        self._renew, self._postpone, self._release, self._recover = (
            cast(Any, redis.register_script(script)) for script in (RENEW, POSTPONE, RELEASE, RECOVER)
        )

    @classmethod
    def connect(cls, settings: FleetSettings) -> Leases:
        """Open the leases in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue, settings.lease)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def take(self, lists: Sequence[str]) -> LeasedMessage | None:
        """Lease the next message of the first list that has one; None where all are empty. See `FAIR_TURN`.

        After BrokerUnavailable the next call is given what the failed one took, if it did take something.
        """
        fair = self._taken % FAIR_TURN == FAIR_TURN - 1
        order = reversed(lists) if fair else lists
        tag, taken = self._take.make([self._leases, self._leased, *order], [self.seconds])
        if not taken:
            return None
        self._taken += 1
        return LeasedMessage(tag, taken[0].decode(), taken[1])

    def renew(self, tags: Sequence[str]) -> set[str]:
        """Renew leases for their full time from now; gives the tags of those that were lost."""
        if not tags:
            return set()
        with typed_redis_errors():
            lost = self._renew(keys=[self._leases], args=[self.seconds, *tags])
        return {one.decode() for one in lost}

    def ack(self, tag: str) -> None:
        """Acknowledge a message: it is done with. Without effect where the lease had been lost."""
        with typed_redis_errors():
            self._release(keys=[self._leases, self._leased], args=[tag])

    def postpone(self, tag: str, seconds: float) -> None:
        """End the lease in so many seconds: the message goes back to the queue then, and no worker waits for it.

        Without effect while a wait that was set before goes on.
        """
        with typed_redis_errors():
            self._postpone(keys=[self._leases, self._postponed], args=[seconds, tag])

    def recover(self) -> int:
        """Put up to 100 messages whose leases are over back to the front of their queue; gives how many."""
        with typed_redis_errors():
            return int(self._recover(keys=[self._leases, self._leased, self._wake], args=[]))

    def count(self) -> int:
        """Count the messages under lease."""
        with typed_redis_errors():
            return cast(int, self._redis.zcard(self._leases))
