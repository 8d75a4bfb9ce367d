"""Leases: a message that a worker takes is its own for some seconds, and goes back to the queue unless it is renewed.

Kombu pops a message and writes down that it is unacknowledged in two steps: a message is lost when its worker is
killed, stopped or cut off in between. Here one script does both. A lease ends by Redis's own clock, so that no worker's
clock matters, and each time a message is taken it gets a new tag: a worker that lost a lease can neither renew nor
acknowledge the lease of the next worker. Every script may run again, at once or late: it then changes nothing.

A message whose job was open (begun, without outcome or retry) when its lease ended is a suspect: its job may have
killed the worker, or another one beside it. Suspects wait in a list of their own, and each is taken by a worker that
takes nothing beside it. A suspect's lease names that list as its origin, and its message is kept with its first origin,
so that an older worker that recovers the lease puts it back there too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis

from ..keys import (
    FAIR_LANE_KEY,
    LEASED_KEY,
    LEASES_KEY,
    POSTPONED_KEY,
    STARTED_KEY,
    SUSPECT_TAGS_KEY,
    SUSPECTS_KEY,
    TENANT_LEASES_KEY,
    WAKE_KEY,
    WORKERS_SEEN_KEY,
)
from ..numbered_calls import NUMBERED_CALL, NumberedCalls
from ..redis_client import connect_redis, typed_redis_errors
from ..settings import FleetSettings
from .kinds import BESIDE, KINDS, JobKind, kind_of
from .tenants.fair_queue import CHARGE, CHOOSE, ENQUEUE, HOLD, LANES

FAIR_TURN = 8
"""One in so many messages is taken from the last list first, so that the first list cannot starve it."""

# The call's id is the tag of the first message, and begins those of the others, which come from the same list. RPOP
# comes first: Redis refuses the first write of a script when memory is full, and none after it. `fair_queue` chooses
# the messages of a lane. A suspect takes a worker out of the common work, so half of the workers at most do that while
# others wait.
TAKE = f"""{NUMBERED_CALL}
local leases, leased, suspects, suspect_tags, workers, wake, held = unpack(KEYS, 2, 8)
local seconds, is_idle, is_awake = ARGV[3], ARGV[4], ARGV[5]
{BESIDE}
if is_late then return false end
local function tag_of(number) return number == 1 and call or call .. ':' .. number end
if is_again then
  local count, place = string.match(given, '^(%d+) (.*)$')
  local reply = false
  for number = 1, tonumber(count or 0) do
    local kept = redis.call('HGET', leased, tag_of(number))
    if kept then
      local lane, message = string.match(kept, '^([^\\n]*)\\n(.*)$')
      reply = reply or {{lane, place}}
      reply[#reply + 1], reply[#reply + 2] = tag_of(number), message
    end
  end
  return reply
end
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local reply, count = false, 0
local function lease(place, message)
  if not message then return false end
  count = count + 1
  redis.call('HSET', leased, tag_of(count), lane_of(place) .. '\\n' .. message)
  redis.call('ZADD', leases, now + seconds, tag_of(count))
  reply = reply or {{lane_of(place), place}}
  reply[#reply + 1], reply[#reply + 2] = tag_of(count), message
  return tag_of(count)
end
local function tenants_wait(place)
  return redis.call('EXISTS', '{FAIR_LANE_KEY.format(place="")}' .. place .. ':waiting') == 1
end
local function take_fairly(place)
{LANES}{CHOOSE}{CHARGE}{HOLD}
  local message, account = next_of(place)
  local tag = lease(place, message)
  if account then hold(held, place, account, tag, now) end
  return tag
end
local function take(place)
  return tenants_wait(place) and take_fairly(place) or lease(place, redis.call('RPOP', place))
end
-- Where few wait, other workers may want some of them: each takes its share in one trip.
local function share_of(place)
  local of_tenants = redis.call('HGET', '{FAIR_LANE_KEY.format(place="")}' .. place, 'jobs') or 0
  local waiting = redis.call('LLEN', place) + of_tenants
  return math.max(1, math.ceil(waiting / math.max(1, redis.call('ZCARD', workers))))
end
local function others_wait()
  for place = 9, #KEYS do
    if redis.call('EXISTS', KEYS[place]) == 1 or tenants_wait(KEYS[place]) then return true end
  end
  return false
end
local function may_run_alone()
  local alone = 0
  for _, other in ipairs(redis.call('SMEMBERS', suspect_tags)) do
    if redis.call('ZSCORE', leases, other) then alone = alone + 1 else redis.call('SREM', suspect_tags, other) end
  end
  if alone < math.max(1, math.floor(redis.call('ZCARD', workers) / 2)) then return true end
  return is_idle == '1' and not others_wait()
end
if redis.call('LLEN', suspects) > 0 and may_run_alone() and lease(suspects, redis.call('RPOP', suspects)) then
  redis.call('SADD', suspect_tags, call)
else
  for place = 9, #KEYS do
    for _ = 1, reply and 0 or math.min(tonumber(ARGV[place - 3]), share_of(KEYS[place])) do
      if not take(KEYS[place]) then break end
    end
  end
  wake = reply and wake_of(reply[2])
end
-- A worker that a token woke has taken one.
local tokens = is_awake == '1' and count or count - 1
for _ = 1, tokens do redis.call('RPOP', wake) end
remember(count .. ' ' .. (reply and reply[2] or ''))
return reply
"""
# ZREM, which removes nothing, comes first: see TAKE.
RENEW = """
redis.call('ZREM', KEYS[1], '')
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
# Whoever postpones is alive: its job is no suspect. A wait that goes on already is this very one.
POSTPONE = """
redis.call('ZREM', KEYS[3], ARGV[2])
local now = redis.call('TIME')
local over = now[1] + now[2] / 1e6 + ARGV[1]
if not redis.call('ZSCORE', KEYS[1], ARGV[2]) then return end
if tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or 0) > now[1] + now[2] / 1e6 then return end
redis.call('ZADD', KEYS[1], 'XX', over, ARGV[2])
redis.call('ZADD', KEYS[2], over, ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now[1])
"""
RELEASE = f"""
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if redis.call('HEXISTS', KEYS[4], ARGV[1]) == 1 then
{LANES}{CHARGE}
  settle(KEYS[4], ARGV[1], 0)
end
"""
# A suspect that was started goes behind the others: if it kills its workers, they are not kept waiting.
RECOVER = f"""{ENQUEUE}{CHARGE}
local leases, leased, wake, started, suspects, held = unpack(KEYS)
local now = redis.call('TIME')
local over = redis.call('ZRANGEBYSCORE', leases, '-inf', now[1] + now[2] / 1e6, 'LIMIT', 0, 100)
for _, tag in ipairs(over) do
  local kept, was_started = redis.call('HGET', leased, tag), redis.call('ZSCORE', started, tag)
  redis.call('HDEL', leased, tag)
  redis.call('ZREM', leases, tag)
  redis.call('ZREM', started, tag)
  if kept then
    local cut = string.find(kept, '\\n', 1, true)
    local origin, message = string.sub(kept, 1, cut - 1), string.sub(kept, cut + 1)
    settle(held, tag, not was_started and 0)
    local tokens = wake
    if was_started then
      redis.call('LPUSH', suspects, origin == suspects and message or kept)
    elseif origin == suspects then
      redis.call('RPUSH', suspects, message)
    else
      tokens = wake_of(enqueue(origin, message, 'RPUSH'))
    end
    redis.call('LPUSH', tokens, '1')
  end
end
return #over
"""


@dataclass(frozen=True)
class LeasedMessage:
    """A message under lease."""

    tag: str
    origin: str
    """Key of the list of its priority."""
    message: bytes
    kind: JobKind = "sounds"
    """Of the list that it was taken from: what competes for the same places."""
    is_suspect: bool = False
    """Whether its worker must do nothing else while it runs: its last worker was lost."""


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
        self._started = STARTED_KEY.format(queue=queue)
        self._suspects = SUSPECTS_KEY.format(queue=queue)
        self._suspect_tags = SUSPECT_TAGS_KEY.format(queue=queue)
        self._workers = WORKERS_SEEN_KEY.format(queue=queue)
        self._held = TENANT_LEASES_KEY.format(queue=queue)
        self._taken = Counter[JobKind]()
        self._last: JobKind = KINDS[-1]
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

    def take(self, lists: Sequence[str], *, idle: bool = True, awake: bool = False) -> LeasedMessage | None:
        """Lease one message, as `take_several` does; None where all lists are empty."""
        return next(iter(self.take_several(dict.fromkeys(lists, 1), idle=idle, awake=awake)), None)

    def take_several(self, room: Mapping[str, int], *, idle: bool = True, awake: bool = False) -> list[LeasedMessage]:
        """Lease a suspect, or the next messages of the first list that has any; none where all are empty.

        Kinds take turns, and of each its first list goes before its others.

        After BrokerUnavailable the next call is given what the failed one took, if it did take something.

        Args:
            room: keys of the lists to take from, the most urgent of each kind first, with the most to take of each; see
                `FAIR_TURN`.
            idle: whether the worker holds no message, so that a suspect keeps it from nothing.
            awake: whether no wake-up token woke the worker, so that the messages' own are removed here.
        """
        _, taken = self._take.make(*self._take_from(room, idle, awake=awake))
        return self._noted(taken)

    def take_command(self, room: Mapping[str, int], *, idle: bool) -> tuple[Any, ...]:
        """Make the command that takes as `take_several` does, for a worker that no wake-up token woke.

        The caller sends it on a connection of its own, and gives its reply to `read_taken`.
        """
        return self._take.command(*self._take_from(room, idle, awake=True))

    def read_taken(self, reply: Any) -> list[LeasedMessage]:
        """Read the reply to `take_command`."""
        self._take.note_answer()
        return self._noted(reply)

    def _take_from(self, room: Mapping[str, int], idle: bool, *, awake: bool) -> tuple[list[str], list[Any]]:
        order = [one for kind in self._kinds_in_turn() for one in self._in_turn(kind, room)]
        keys = [self._leases, self._leased, self._suspects, self._suspect_tags, self._workers, self._wake, self._held]
        return [*keys, *(place for place, _ in order)], [
            self.seconds,
            int(idle),
            int(awake),
            *(most for _, most in order),
        ]

    def _kinds_in_turn(self) -> Sequence[JobKind]:
        """Kinds, the one that was taken last behind the other, which so waits for none of it, however many come."""
        return sorted(KINDS, key=lambda kind: kind == self._last)

    def _in_turn(self, kind: JobKind, room: Mapping[str, int]) -> Sequence[tuple[str, int]]:
        """Lists of a kind, and how much to take of each: no more than up to the turn of the last list."""
        of_kind = [place for place in room if kind_of(place) == kind]
        before_turn = FAIR_TURN - 1 - self._taken[kind] % FAIR_TURN
        if before_turn or len(of_kind) < 2:
            return [(place, min(room[place], before_turn or FAIR_TURN)) for place in of_kind]
        *others, last = of_kind
        return [(last, 1), *((place, min(room[place], FAIR_TURN)) for place in reversed(others))]

    def _noted(self, taken: Any) -> list[LeasedMessage]:
        if not taken:
            return []
        origin, place = taken[0].decode(), taken[1].decode()
        messages = list(zip(taken[2::2], taken[3::2], strict=True))
        kind = self._last = kind_of(place)
        self._taken[kind] += len(messages)
        if origin != self._suspects:
            return [LeasedMessage(tag.decode(), origin, message, kind) for tag, message in messages]
        ((tag, message),) = messages
        first_origin, _, message = message.partition(b"\n")
        return [LeasedMessage(tag.decode(), first_origin.decode(), message, is_suspect=True)]

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
            self._release(keys=[self._leases, self._leased, self._started, self._held], args=[tag])

    def postpone(self, tag: str, seconds: float) -> None:
        """End the lease in so many seconds: the message goes back to the queue then, and no worker waits for it.

        Without effect while a wait that was set before goes on.
        """
        with typed_redis_errors():
            self._postpone(keys=[self._leases, self._postponed, self._started], args=[seconds, tag])

    def recover(self) -> int:
        """Put up to 100 messages whose leases are over back to the front of their queue, or among the suspects.

        Returns:
            How many.
        """
        keys = [self._leases, self._leased, self._wake, self._started, self._suspects, self._held]
        with typed_redis_errors():
            return int(self._recover(keys=keys, args=[]))

    def count(self) -> int:
        """Count the messages under lease."""
        with typed_redis_errors():
            return cast(int, self._redis.zcard(self._leases))
