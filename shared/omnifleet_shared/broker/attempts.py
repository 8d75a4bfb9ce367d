"""Attempts at jobs as workers record them. A write counts only while the worker holds the lease of the job's message.

A worker that was stopped, or cut off, for longer than its lease may come back and finish: it then can neither start the
job, nor record an outcome, nor overwrite what the next worker recorded. What was recorded is remembered by the tag of
the lease: a script that runs again, at once or late, changes nothing and answers as it did.
"""

from __future__ import annotations

import json
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

from redis import Redis

from ..errors import OmnifleetError
from ..keys import (
    ATTEMPTS_KEY,
    CALLBACK_KEY,
    CALLBACKS_KEY,
    CANCEL_KEY,
    DEAD_KEY,
    LEASED_KEY,
    LEASES_KEY,
    OPEN_LIFETIME,
    STARTED_KEY,
    SUSPECT_TAGS_KEY,
    SUSPECTS_KEY,
    TENANT_LEASES_KEY,
    THROUGHPUT_KEY,
    THROUGHPUT_LIFETIME,
)
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.callback import CallbackOutcome, failed, succeeded
from ..schema.job_state import STATE_KEY, failure_record, retry_record, started_record, success_record
from ..schema.results import JobResult
from ..settings import FleetSettings
from ..webhooks.outbox import ENQUEUE_CALLBACK
from .dead_letters import DeadLetter
from .tenants.fair_queue import HEADER, SPENT

# In all scripts below the first write is ZREM: Redis refuses the first write of a script where that needs memory and
# there is none, and no write after the first. So a full Redis still records what becomes of the jobs that it holds.
MAX_TRACEBACK = 10_000
"""Most characters of a traceback that are kept, from its end, where the error is."""

# KEYS: state, leased messages, attempts, cancel request, throughput counter; those of `outbox.ENQUEUE_CALLBACK`; dead
# letters, leases, tags of started messages, suspects, tags of suspects, charges.
# ARGV: tag, record, lifetime in seconds, worker, job, traceback; those of `outbox.ENQUEUE_CALLBACK`; dead letter or ''.
ENDED = """
local function ended(state)
  local known, record = pcall(cjson.decode, state)
  if not known or type(record) ~= 'table' then return false end
  return record.status == 'SUCCESS' or record.status == 'FAILURE' or record.status == 'REVOKED'
end
local state = redis.call('GET', KEYS[1])
local message = redis.call('HGET', KEYS[2], ARGV[1])
if not message then return {'lost'} end
if state and ended(state) then return {'ended'} end
local started, suspects, suspect_tags = unpack(KEYS, 10, 12)
local is_suspect = string.sub(message, 1, #suspects + 1) == suspects .. '\\n'
"""
WRITE = """
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[3])
"""
# Where its worker has given the job back already, a start that comes late is none. Each call costs a microsecond: what
# is read of the attempts is read at once, and so is it written.
BEGIN = f"""{ENDED}
local attempts, open, died_alone, handed_back, previous, refused_by, before, retried, traceback, deadline = unpack(
  redis.call('HMGET', KEYS[3], 'attempts', 'open', 'alone', 'handed_back', 'worker', 'refused_by',
    'begun:' .. ARGV[1], 'retried:' .. ARGV[1], 'traceback', 'sent:deadline'))
local clock = redis.call('TIME')
-- With Redis's time, and the job's deadline by it where it is known.
local function begun(start)
  return {{'begun', start, traceback or '', string.format('%.3f', clock[1] + clock[2] / 1e6), deadline or ''}}
end
if before then return begun(before) end
if retried then return {{'lost'}} end
if redis.call('EXISTS', KEYS[4]) == 1 then return {{'cancelled'}} end
redis.call('ZREM', started, ARGV[1])
redis.call('ZADD', started, clock[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', started, '-inf', clock[1] - ARGV[3])
attempts, open, died_alone = (attempts or 0) + 1, (open or 0) + 1, tonumber(died_alone or 0)
local start = cjson.encode({{attempts, open, previous or '', died_alone, tonumber(handed_back or 0), refused_by or ''}})
redis.call('HSET', KEYS[3], 'attempts', attempts, 'open', open, 'alone', died_alone + (is_suspect and 1 or 0),
  'worker', ARGV[4], 'begun:' .. ARGV[1], start)
{WRITE}
return begun(start)
"""
CONCERNS_A_TENANT = f"string.find(message, '{HEADER}', 1, true) or redis.call('HEXISTS', KEYS[13], ARGV[1]) == 1"
# Its worker lived to tell: the job is no suspect, and waits where it was queued. ARGV 7: `Fault`. ARGV 8: GPU-seconds.
RETRY = f"""
local retried = 'retried:' .. ARGV[1]
if redis.call('HEXISTS', KEYS[3], retried) == 1 then return {{'written'}} end
{ENDED}
redis.call('ZREM', started, ARGV[1])
redis.call('HSET', KEYS[3], 'open', 0, 'alone', 0, 'traceback', ARGV[6], retried, 1)
if {CONCERNS_A_TENANT} then
{SPENT}
  spent(KEYS[13], ARGV[1], message, tonumber(ARGV[8]))
end
if ARGV[7] == 'worker' then redis.call('HINCRBY', KEYS[3], 'handed_back', 1) end
if ARGV[7] == 'storage' then
  local refused_by = redis.call('HGET', KEYS[3], 'refused_by')
  redis.call('HSET', KEYS[3], 'refused_by', refused_by and refused_by .. ' ' .. ARGV[4] or ARGV[4])
end
if is_suspect then
  redis.call('HSET', KEYS[2], ARGV[1], string.sub(message, #suspects + 2))
  redis.call('SREM', suspect_tags, ARGV[1])
end
{WRITE}
return {{'written'}}
"""
# The message leaves the queue with the outcome: a replay in between would find it there a second time. ARGV 11:
# GPU-seconds.
FINISH = f"""
local finished = 'finished:' .. ARGV[1]
local before, same, counted = unpack(redis.call('HMGET', KEYS[3], finished, 'sent:key', 'unfinished'))
if before then return {{'written'}} end
{ENDED}
redis.call('ZREM', started, ARGV[1])
redis.call('HSET', KEYS[3], 'open', 0, 'alone', 0, finished, 1)
{WRITE}
if {CONCERNS_A_TENANT} then
{SPENT}
  spent(KEYS[13], ARGV[1], message, tonumber(ARGV[11]))
  if ARGV[10] ~= '' then redis.call('HSET', KEYS[3], 'sent:tenant', tenant_of(message) or '') end
end
{ENQUEUE_CALLBACK}
if ARGV[10] ~= '' then redis.call('HSET', KEYS[8], ARGV[5], ARGV[10]) end
if string.find(message, ARGV[5], 1, true) then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('ZREM', KEYS[9], ARGV[1])
end
if same and redis.call('GET', same) == ARGV[5] then redis.call('EXPIRE', same, ARGV[3]) end
if counted then redis.call('ZREM', counted, ARGV[5]) end
local minute = KEYS[5] .. math.floor(redis.call('TIME')[1] / 60)
redis.call('INCR', minute)
redis.call('EXPIRE', minute, {THROUGHPUT_LIFETIME})
return {{'written'}}
"""

SCRIPT_KEYS = (
    STATE_KEY,
    LEASED_KEY,
    ATTEMPTS_KEY,
    CANCEL_KEY,
    THROUGHPUT_KEY,
    CALLBACK_KEY,
    CALLBACKS_KEY,
    DEAD_KEY,
    LEASES_KEY,
    STARTED_KEY,
    SUSPECTS_KEY,
    SUSPECT_TAGS_KEY,
    TENANT_LEASES_KEY,
)
Verdict = Literal["begun", "written", "lost", "ended", "cancelled"]
Fault = Literal["", "worker", "storage"]
"""Whose fault a retry is: nobody's in particular; the worker's, so that the attempt does not count; or the storage
refused the job to a worker whose own probe it takes."""


@dataclass(frozen=True)
class AttemptStart:
    """The answer to `Attempts.begin`: whether the attempt may start, and which one it is."""

    verdict: Verdict
    attempt: int = 0
    """Starts of the job so far, this one included."""
    unacked_starts: int = 0
    """Starts in a row without an outcome or a retry, this one included: a job that kills workers has many."""
    previous_worker: str = ""
    """Name of the worker that started it before; empty at the first attempt."""
    traceback: str = ""
    """Of the last error after which it was retried; empty where there was none."""
    died_alone: int = 0
    """Those of the starts in a row before this one in which its worker ran nothing else."""
    handed_back: int = 0
    """Earlier starts that ended for a fault of their worker, and do not count."""
    refused_by: frozenset[str] = frozenset()
    """Names of workers whose storage refused it, though their own probes worked."""
    asked_at: float | None = field(default=None, compare=False)
    """When Redis answered, by its own clock."""
    deadline: float | None = field(default=None, compare=False)
    """The job's deadline by that clock; None where it has none, or was sent by an older release."""

    def seconds_until(self, deadline: datetime | None) -> float | None:
        """Give the seconds that were left before the job's deadline, by Redis's clock; None where there is none."""
        if deadline is None:
            return None
        now = time.time() if self.asked_at is None else self.asked_at
        return (deadline.timestamp() if self.deadline is None else self.deadline) - now


class Attempts:
    """Records the attempts of one worker process. Every method may raise BrokerUnavailable.

    Args:
        redis: client of the fleet's Redis.
        queue: name of the queue that the jobs come from.
        lifetime: seconds that records are kept.
        worker: name of the worker.
    """

    def __init__(self, redis: Redis, queue: str, lifetime: int, worker: str) -> None:
        self._redis = redis
        self._lifetime = lifetime
        self.worker = worker
        self._keys = [key.format(job_id="{job_id}", queue=queue) for key in SCRIPT_KEYS]
        self._begin, self._retry, self._finish = (
            cast(Any, redis.register_script(script)) for script in (BEGIN, RETRY, FINISH)
        )

    @classmethod
    def connect(cls, settings: FleetSettings, worker: str) -> Attempts:
        """Record attempts in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue, settings.result_lifetime, worker)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def begin(self, job_id: str, tag: str) -> AttemptStart:
        """Count and record that this worker starts the job whose message is leased under `tag`.

        Called again under the same tag it counts nothing, and gives the same start.
        """
        return self._run(self._begin, job_id, tag, started_record(job_id))

    def succeed(self, result: JobResult, tag: str, callback: str | None = None, *, gpu_seconds: float = 0.0) -> Verdict:
        """Record the result, that it is to be posted to `callback`, and end the lease of the job's message.

        Args:
            result: of the job.
            tag: of the lease.
            callback: URL; None where there is none.
            gpu_seconds: that the attempt took, which its tenant is charged.

        Returns:
            `written`, or why it does not count.
        """
        intent = _callback_intent(callback, lambda delivery_id: succeeded(result, delivery_id))
        return self._run(self._finish, result.job_id, tag, success_record(result), "", *intent, "", gpu_seconds).verdict

    def fail(
        self,
        job_id: str,
        error: OmnifleetError,
        tag: str,
        callback: str | None = None,
        letter: DeadLetter | None = None,
        *,
        gpu_seconds: float = 0.0,
    ) -> Verdict:
        """Record a final failure as `succeed` records a result; `letter` is kept until it is replayed or dropped."""
        intent = _callback_intent(callback, lambda delivery_id: failed(job_id, error, delivery_id))
        kept = "" if letter is None else letter.model_dump_json()
        about = ("", *intent, kept, gpu_seconds)
        return self._run(self._finish, job_id, tag, failure_record(job_id, error), *about).verdict

    def retry(
        self, job_id: str, error: OmnifleetError, tag: str, fault: Fault = "", *, gpu_seconds: float = 0.0
    ) -> Verdict:
        """Record a failure after which the job is retried; see `Fault`, and `succeed` for the rest."""
        text = "".join(traceback.format_exception(error))[-MAX_TRACEBACK:]
        return self._run(self._retry, job_id, tag, retry_record(job_id, error), text, fault, gpu_seconds).verdict

    def _run(self, script: Any, job_id: str, tag: str, record: str, *args: str | float) -> AttemptStart:
        names = [key.format(job_id=job_id) for key in self._keys]
        lifetime = self._lifetime if script is self._finish else max(self._lifetime, OPEN_LIFETIME)
        with typed_redis_errors():
            verdict, *start = script(keys=names, args=[tag, record, lifetime, self.worker, job_id, *args])
        if not start:
            return AttemptStart(cast(Verdict, verdict.decode()))
        attempt, unacked, previous, died_alone, handed_back, refused_by = json.loads(start[0])
        counts = (died_alone, handed_back, frozenset(refused_by.split()))
        times = (float(start[2]), float(start[3]) if start[3] else None)
        return AttemptStart("begun", attempt, unacked, previous, start[1].decode(), *counts, *times)


def _callback_intent(url: str | None, outcome: Callable[[str], CallbackOutcome]) -> tuple[str, str, str]:
    """Make the arguments of `outbox.ENQUEUE_CALLBACK`: URL, delivery id and body, all empty without a callback."""
    if url is None:
        return "", "", ""
    delivery_id = uuid.uuid4().hex
    return url, delivery_id, outcome(delivery_id).model_dump_json()
