"""Attempts at jobs as workers record them. Every write holds only while the attempt's lease does.

A worker that was stopped, or cut off, long enough to lose its lease may come back and finish: it then finds that it can
neither begin, nor answer, nor overwrite what the next worker answered.
"""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from redis import Redis

from ..errors import OmnifleetError
from ..keys import (
    ATTEMPTS_KEY,
    CALLBACK_KEY,
    CALLBACKS_KEY,
    CANCEL_KEY,
    LEASED_KEY,
    THROUGHPUT_KEY,
    THROUGHPUT_LIFETIME,
)
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.callback import CallbackOutcome, failed, succeeded
from ..schema.job_state import STATE_KEY, failure_record, retry_record, started_record, success_record
from ..schema.results import JobResult
from ..settings import FleetSettings
from ..webhooks.outbox import ENQUEUE_CALLBACK

TOLD = 10_000
"""Most characters of a traceback that are kept: its end, where the error is."""

# KEYS: state, leased messages, attempts, cancel request, throughput counter; and those of `outbox.ENQUEUE_CALLBACK`.
# ARGV: tag, record, lifetime in seconds, worker, job, traceback; and those of `outbox.ENQUEUE_CALLBACK`.
ENDED = """
local function ended(state)
  local known, record = pcall(cjson.decode, state)
  if not known or type(record) ~= 'table' then return false end
  return record.status == 'SUCCESS' or record.status == 'FAILURE' or record.status == 'REVOKED'
end
local state = redis.call('GET', KEYS[1])
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return {'lost', 0, 0, '', ''} end
if state and ended(state) then return {'ended', 0, 0, '', ''} end
"""
WRITE = """
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[2])
"""
BEGIN = f"""{ENDED}
if redis.call('EXISTS', KEYS[4]) == 1 then return {{'cancelled', 0, 0, '', ''}} end
local attempts = redis.call('HINCRBY', KEYS[3], 'attempts', 1)
local open = redis.call('HINCRBY', KEYS[3], 'open', 1)
local previous = redis.call('HGET', KEYS[3], 'worker') or ''
redis.call('HSET', KEYS[3], 'worker', ARGV[4])
redis.call('EXPIRE', KEYS[3], ARGV[3])
{WRITE}
return {{'begun', attempts, open, previous, redis.call('HGET', KEYS[3], 'traceback') or ''}}
"""
RETRY = f"""{ENDED}
redis.call('HSET', KEYS[3], 'open', 0, 'traceback', ARGV[6])
redis.call('EXPIRE', KEYS[3], ARGV[3])
{WRITE}
return {{'written', 0, 0, '', ''}}
"""
FINISH = f"""{ENDED}
{WRITE}
redis.call('HSET', KEYS[3], 'open', 0)
redis.call('EXPIRE', KEYS[3], ARGV[3])
{ENQUEUE_CALLBACK}
local counted = redis.call('HGET', KEYS[3], 'unfinished')
if counted then redis.call('ZREM', counted, ARGV[5]) end
local minute = KEYS[5] .. math.floor(redis.call('TIME')[1] / 60)
redis.call('INCR', minute)
redis.call('EXPIRE', minute, {THROUGHPUT_LIFETIME})
return {{'written', 0, 0, '', ''}}
"""

Verdict = Literal["begun", "written", "lost", "ended", "cancelled"]


@dataclass(frozen=True)
class AttemptStart:
    """Whether an attempt may begin, and which one it is."""

    verdict: Verdict
    attempt: int
    """Starts of the job so far, this one included."""
    unacked_starts: int
    """Starts in a row that came to no end, this one included: what kills workers has many."""
    previous_worker: str
    """Who started it before; empty where nobody did."""
    traceback: str = ""
    """Of the last error after which it was tried again; empty where there was none."""


class Attempts:
    """The attempts of one worker process. Every method may raise BrokerUnavailable.

    Args:
        redis: of the fleet.
        queue: that the jobs were taken from.
        lifetime: seconds that records are kept.
        worker: the worker's name.
    """

    def __init__(self, redis: Redis, queue: str, lifetime: int, worker: str) -> None:
        self._redis = redis
        self._leased = LEASED_KEY.format(queue=queue)
        self._lifetime = lifetime
        self._worker = worker
        self._finished = THROUGHPUT_KEY.format(queue=queue)
        self._callbacks = CALLBACKS_KEY.format(queue=queue)
        self._begin, self._retry, self._finish = (
            cast(Any, redis.register_script(script)) for script in (BEGIN, RETRY, FINISH)
        )

    @classmethod
    def connect(cls, settings: FleetSettings, worker: str) -> Attempts:
        """Attempts in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue, settings.result_lifetime, worker)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def begin(self, job_id: str, tag: str) -> AttemptStart:
        """Count and record that this worker starts the job of the message under lease `tag`."""
        return self._run(self._begin, job_id, tag, started_record(job_id))

    def succeed(self, result: JobResult, tag: str, callback: str | None = None) -> Verdict:
        """Record the result, and the wish to post it to `callback`: `written`, or why it does not count."""
        wish = _wish(callback, lambda delivery_id: succeeded(result, delivery_id))
        return self._run(self._finish, result.job_id, tag, success_record(result), wish=wish).verdict

    def fail(self, job_id: str, error: OmnifleetError, tag: str, callback: str | None = None) -> Verdict:
        """Record a failure for good, and the wish to post it to `callback`."""
        wish = _wish(callback, lambda delivery_id: failed(job_id, error, delivery_id))
        return self._run(self._finish, job_id, tag, failure_record(job_id, error), wish=wish).verdict

    def retry(self, job_id: str, error: OmnifleetError, tag: str) -> Verdict:
        """Record a failure after which the job is tried again."""
        told = "".join(traceback.format_exception(error))[-TOLD:]
        return self._run(self._retry, job_id, tag, retry_record(job_id, error), told).verdict

    def _run(
        self, script: Any, job_id: str, tag: str, record: str, told: str = "", wish: Sequence[str] = ()
    ) -> AttemptStart:
        keys = [STATE_KEY, self._leased, ATTEMPTS_KEY, CANCEL_KEY, self._finished, CALLBACK_KEY, self._callbacks]
        names = [key.format(job_id=job_id) for key in keys]
        with typed_redis_errors():
            verdict, attempt, unfinished, previous, last = script(
                keys=names, args=[tag, record, self._lifetime, self._worker, job_id, told, *wish]
            )
        return AttemptStart(cast(Verdict, verdict.decode()), attempt, unfinished, previous.decode(), last.decode())


def _wish(url: str | None, outcome: Callable[[str], CallbackOutcome]) -> tuple[str, str, str]:
    """What `callbacks.ENQUEUE_CALLBACK` takes: URL, delivery id and body, all empty where nobody is to be told."""
    if url is None:
        return "", "", ""
    delivery_id = uuid.uuid4().hex
    return url, delivery_id, outcome(delivery_id).model_dump_json()
