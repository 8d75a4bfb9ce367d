"""Submissions: a message enters the queue together with the records of its job, in one step or not at all.

Sending again after a lost connection is harmless: the script finds what its first run did, and answers as that did.
"""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

from redis import Redis

from ..errors import InvalidSetting, QueueFull, QuotaExceeded
from ..keys import (
    ANSWER_KEY,
    ANSWER_LIFETIME,
    ANSWERS_QUEUE,
    ATTEMPTS_KEY,
    BINDINGS,
    BROKER_PRIORITY,
    CANCEL_KEY,
    FAIR_LANE_KEY,
    IDEMPOTENCY_KEY,
    OPEN_LIFETIME,
    THROUGHPUT_KEY,
    UNFINISHED_KEY,
    WAKE_CALLS,
    WAKE_KEY,
)
from ..schema.idempotency import IdempotencyKey
from ..schema.job_state import STATE_KEY, queued_record
from ..schema.results import Route
from ..settings import FleetSettings
from .kinds import IS_ANSWER, KINDS, kind_queue
from .tenants.fair_queue import DAY, ENQUEUE, HEADER, LANES, QUOTA

MIN_RETRY_AFTER, DEFAULT_RETRY_AFTER, MAX_RETRY_AFTER = 1, 30, 600
"""Bounds of `retry_after` in seconds, and its value where no job has ended lately."""

ROOM = 0.01
"""Share of a limit that is to be free again when a refused producer comes back."""

# The message comes first: Redis refuses the first write of a script when memory is full, and none after it. The queue
# is noted as kombu does it (routing key, pattern, queue), so that it is known before any worker has served it.
HELPERS = f"""
{IS_ANSWER}
local function push(place, message, wake, state, record, lifetime)
  if string.find(message, '{HEADER}', 1, true) or is_answer(message) then
{ENQUEUE}
    wake = wake_of(enqueue(place, message, 'LPUSH'))
  else
    redis.call('LPUSH', place, message)
  end
  local queue = string.match(place, '^[^\\6]+')
  redis.call('SADD', '{BINDINGS}' .. queue, queue .. '\\6\\22\\6\\22' .. queue)
  redis.call('LPUSH', wake, '1')
  redis.call('LTRIM', wake, 0, {WAKE_CALLS - 1})
  redis.call('SET', state, record, 'EX', lifetime)
  redis.call('PUBLISH', state, record)
end
local function status_of(state)
  local known, job = pcall(cjson.decode, redis.call('GET', state))
  return known and type(job) == 'table' and type(job.status) == 'string' and job.status
end
local function count_unfinished(runs, unfinished, job_id, lifetime)
  if unfinished == '' then return end
  local now = tonumber(redis.call('TIME')[1])
  redis.call('ZREMRANGEBYSCORE', unfinished, '-inf', now - lifetime)
  redis.call('ZADD', unfinished, now, job_id)
  redis.call('EXPIRE', unfinished, lifetime)
  redis.call('HSET', runs, 'unfinished', unfinished)
  redis.call('EXPIRE', runs, lifetime)
end
"""
# Names of other jobs' keys are made from the id that the idempotency key holds.
SUBMIT = f"""{HELPERS}
local state, runs, wake, place, finished, same, unfinished = unpack(KEYS, 1, 7)
local job_id, message, record, lifetime, most_queued, most_unfinished, call, request, seconds_left, route = unpack(ARGV)
-- Redis checks its users' rights to every key that is named, an empty one too: there is none.
if same == state then same = '' end
if unfinished == state then unfinished = '' end
most_queued, most_unfinished = tonumber(most_queued), tonumber(most_unfinished)
lifetime = math.max(tonumber(lifetime), {OPEN_LIFETIME})
local function stands(other)
  local status = status_of('{STATE_KEY.format(job_id="")}' .. other)
  if not status or status == 'FAILURE' or status == 'REVOKED' then return false end
  return status == 'SUCCESS' or redis.call('EXISTS', '{CANCEL_KEY.format(job_id="")}' .. other) == 0
end
-- Names of the fields in which this request is not that of the other job; '' where both are the same or not known.
local function differences(other)
  if not request or request == '' then return '' end
  local theirs = redis.call('HGET', '{ATTEMPTS_KEY.format(job_id="")}' .. other, 'sent:request')
  if not theirs then return '' end
  local mine, found = cjson.decode(request), {{}}
  theirs = cjson.decode(theirs)
  for name, digest in pairs(mine) do
    if theirs[name] ~= digest then found[#found + 1] = name end
  end
  for name in pairs(theirs) do
    if mine[name] == nil then found[#found + 1] = name end
  end
  table.sort(found)
  return table.concat(found, ' ')
end
local function note(field, value)
  redis.call('HSET', runs, field, value)
  redis.call('EXPIRE', runs, lifetime)
end
local answered = call and call ~= '' and '{ANSWER_KEY.format(call="")}' .. call
-- Kept where nothing is queued, which a full Redis may refuse: the call may come again when there is room.
local function keep(answer)
  if answered then redis.pcall('SET', answered, cjson.encode(answer), 'EX', {ANSWER_LIFETIME}) end
  return answer
end
local function refusal(verdict, count)
  local now = tonumber(redis.call('TIME')[1])
  local minute = math.floor(now / 60)
  local done = tonumber(redis.call('GET', finished .. minute) or 0)
  local done_before = tonumber(redis.call('GET', finished .. (minute - 1)) or 0)
  return keep({{verdict, '', count, done + done_before, 60 + now % 60}})
end

local before = answered and redis.call('GET', answered)
if before then return cjson.decode(before) end
if redis.call('EXISTS', state) == 1 then return {{'sent', job_id, 0, 0, 0}} end
local other = same ~= '' and redis.call('GET', same)
if other and stands(other) then
  local differs = differences(other)
  if differs ~= '' then return keep({{'conflict', other, 0, 0, 0, differs}}) end
  return keep({{'sent', other, 0, 0, 0}})
end
if string.find(message, '{HEADER}', 1, true) then
{LANES}{QUOTA}
  local tenant = tenant_of(message)
  local left = tenant and quota_left(tenant)
  if left and left <= 0 then return keep({{'quota', '', 0, 0, {DAY} - redis.call('TIME')[1] % {DAY}}}) end
end
local queued = 0
for list = 8, #KEYS do
  for _, place in ipairs({{KEYS[list], '{ANSWERS_QUEUE.format(queue="")}' .. KEYS[list]}}) do
    local of_tenants = redis.call('HGET', '{FAIR_LANE_KEY.format(place="")}' .. place, 'jobs') or 0
    queued = queued + redis.call('LLEN', place) + of_tenants
  end
end
if queued >= most_queued then return refusal('queued', queued) end
if most_unfinished then
  local since = tonumber(redis.call('TIME')[1]) - lifetime
  local count = redis.call('ZCOUNT', unfinished, '(' .. since, '+inf')
  if count >= most_unfinished then return refusal('unfinished', count) end
end
push(place, message, wake, state, record, lifetime)
if same ~= '' then
  redis.call('SET', same, job_id, 'EX', lifetime)
  note('sent:key', same)
  if request and request ~= '' then note('sent:request', request) end
end
if seconds_left and seconds_left ~= '' then
  local now = redis.call('TIME')
  note('sent:deadline', string.format('%.3f', now[1] + now[2] / 1e6 + seconds_left))
end
if route and route ~= '' then note('sent:route', route) end
count_unfinished(runs, unfinished, job_id, lifetime)
return {{'sent', job_id, 0, 0, 0}}
"""


class Submission(Protocol):
    """Queues a message."""

    def push(self, redis: Redis, list_key: str, message: str) -> None:
        """Push the message to the list `list_key` and write the job's records. May raise OmnifleetError."""


class AlreadySubmitted(Exception):
    """Raised where nothing was queued: an earlier job has the same idempotency key."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class Submissions:
    """Creates the submissions of one producer.

    Args:
        settings: queue, limits and lifetimes.

    Raises:
        InvalidSetting: there is a limit on unfinished jobs, and no producer name to count them under.
    """

    def __init__(self, settings: FleetSettings) -> None:
        if settings.max_unfinished is not None and settings.producer is None:
            remedy = "Name the producer, or leave OMNIFLEET_MAX_UNFINISHED out"
            raise InvalidSetting("unfinished jobs are counted by their producer", "OMNIFLEET_PRODUCER", remedy)
        self.settings = settings
        self.unfinished = unfinished_key(settings.producer)
        self._script: Any = None

    def script(self, redis: Redis) -> Any:
        """Give `SUBMIT`, to be run with any client: redis-py hashes a script each time that it is registered."""
        if self._script is None:
            self._script = redis.register_script(SUBMIT)
        return self._script

    def new(
        self,
        job_id: str,
        key: IdempotencyKey | None = None,
        *,
        seconds_left: float | None = None,
        route: Route | None = None,
    ) -> Submission:
        """Create the submission of a new job.

        Args:
            job_id: the job's id.
            key: its idempotency key, which holds for the whole fleet, whichever queue the job goes to.
            seconds_left: seconds before its deadline; None where it has none.
            route: where it was routed to; None for the fleet's own queue.
        """
        return _NewJob(self, job_id, key, seconds_left, route)

    def refusal(self, verdict: Literal["queued", "unfinished"], count: int, finished: int, seconds: int) -> QueueFull:
        """Make the error for a limit that is reached, when the fleet finished so many jobs in so many seconds."""
        limit = getattr(self.settings, f"max_{verdict}")
        wait = _retry_after(limit, finished, seconds)
        problem = {
            "queued": f"{count} jobs wait in the queue already",
            "unfinished": f"{count} jobs of {self.settings.producer} have no outcome yet",
        }
        details = {verdict: count, "limit": limit, "retry_after": wait}
        return QueueFull(problem[verdict], f"OMNIFLEET_MAX_{verdict.upper()}", f"Submit again in {wait} s", details)


@dataclass(frozen=True)
class _NewJob:
    of: Submissions
    job_id: str
    key: IdempotencyKey | None
    seconds_left: float | None
    route: Route | None
    call: str = field(default_factory=lambda: uuid.uuid4().hex)

    def push(self, redis: Redis, list_key: str, message: str) -> None:
        settings = self.of.settings
        limits = [settings.result_lifetime, settings.max_queued, settings.max_unfinished or "", self.call]
        request = json.dumps(dict(self.key.request)) if self.key and self.key.request else ""
        route = "" if self.route is None else self.route.model_dump_json()
        about = [request, "" if self.seconds_left is None else self.seconds_left, route]
        args = [self.job_id, message, queued_record(self.job_id), *limits, *about]
        submit = self.of.script(redis)
        verdict, job_id, *counts = submit(keys=self._keys(list_key), args=args, client=redis)
        if verdict == b"conflict" and self.key is not None:
            raise self.key.conflict(counts[-1].decode().split(), job_id.decode())
        if verdict == b"quota":
            raise _quota_exceeded(counts[-1])
        if verdict != b"sent":
            raise self.of.refusal(cast(Any, verdict.decode()), *counts)
        if job_id.decode() != self.job_id:
            raise AlreadySubmitted(job_id.decode())

    def _keys(self, list_key: str) -> list[str]:
        fleet, key, state = self.of.settings.queue, self.key, STATE_KEY.format(job_id=self.job_id)
        queue = fleet if self.route is None else self.route.queue
        return [
            state,
            ATTEMPTS_KEY.format(job_id=self.job_id),
            WAKE_KEY.format(queue=queue),
            list_key,
            THROUGHPUT_KEY.format(queue=queue),
            IDEMPOTENCY_KEY.format(queue=fleet, key=key.key) if key else state,
            self.of.unfinished or state,
            *queue_lists(queue),
        ]


def queue_lists(queue: str) -> list[str]:
    """Name the Redis lists of a queue as kombu's transport does, most urgent first."""
    steps = sorted(BROKER_PRIORITY.values())
    return [f"{queue}\x06\x16{step}" if step else queue for step in steps]


def all_lists(queue: str) -> list[str]:
    """Name the Redis lists in which a queue's messages wait: its own, and those of answers (`broker.kinds`)."""
    return [place for kind in KINDS for place in queue_lists(kind_queue(queue, kind))]


def fair_lanes(queue: str) -> list[str]:
    """Name the hashes of all these lists, which count the messages of tenants that wait (`keys.FAIR_LANE_KEY`)."""
    return [FAIR_LANE_KEY.format(place=place) for place in all_lists(queue)]


def unfinished_key(producer: str | None) -> str:
    """Name the key that counts the producer's unfinished jobs; empty where they are not counted."""
    return UNFINISHED_KEY.format(producer=producer) if producer else ""


def _quota_exceeded(wait: int) -> QuotaExceeded:
    problem = "its jobs have used the GPU-seconds that it has a day"
    return QuotaExceeded(problem, "tenant", f"Submit again in {wait} s", {"retry_after": wait})


def _retry_after(limit: int, finished: int, seconds: int) -> int:
    """Estimate the seconds in which the fleet, at its recent rate, frees a hundredth of the limit."""
    if not finished:
        return DEFAULT_RETRY_AFTER
    wait = math.ceil(limit * ROOM) * seconds / finished
    return min(max(math.ceil(wait), MIN_RETRY_AFTER), MAX_RETRY_AFTER)
