"""States of jobs in Redis: Celery's result records, plus progress and wishes to cancel.

Celery keeps one JSON object a job under `celery-task-meta-<id>` and publishes each new version on a channel of
that name (docs.celeryq.dev, "Redis backend"). It is read here with redis-py, so that waiting survives lost connections
and needs no Celery state in the caller's threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import ValidationError
from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from .errors import (
    BrokerUnavailable,
    InvalidMessage,
    InvalidSetting,
    JobCancelled,
    JobFailed,
    OmnifleetError,
    UnknownJob,
    error_from_wire,
)
from .names import ATTEMPTS_KEY, CANCEL_KEY, CANCEL_LIFETIME, PROGRESS_KEY, PROGRESS_LIFETIME, QUEUED
from .results import JobResult, JobStatus, Progress, read_result
from .settings import FleetSettings

STATE_KEY = "celery-task-meta-{job_id}"
LOOK_AGAIN = 1.0
"""Seconds after which a waiter reads the state without having been told: a message may be lost with its connection."""

STATUS_OF = {
    QUEUED: JobStatus.QUEUED,
    "STARTED": JobStatus.RUNNING,
    "RETRY": JobStatus.RETRYING,
    "SUCCESS": JobStatus.SUCCEEDED,
    "FAILURE": JobStatus.FAILED,
    "REVOKED": JobStatus.CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class JobState:
    """One reading of a job's record."""

    status: JobStatus
    result: JobResult | None = None
    error: OmnifleetError | None = None
    """Why it failed, or why it is being retried."""


class JobStates:
    """The states of all jobs of a fleet. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, lifetime: int) -> None:
        self._redis = redis
        self._lifetime = lifetime

    @classmethod
    def connect(cls, settings: FleetSettings) -> JobStates:
        """States in the Redis of these settings; the first operation connects.

        Raises:
            InvalidSetting: the URL is none of Redis.
        """
        try:
            redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
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
        return cls(redis, settings.result_lifetime)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def ping(self) -> None:
        """Raise BrokerUnavailable unless Redis answers."""
        with _typed_errors():
            self._redis.ping()

    def mark_queued(self, job_id: str) -> None:
        """Record that the job is about to be sent; without this an id is unknown."""
        record = {"status": QUEUED, "result": None, "traceback": None, "task_id": job_id, "children": []}
        self._store(job_id, record)

    def mark_failed(self, job_id: str, error: OmnifleetError) -> None:
        """Record a failure in Celery's own form, for messages that never become a Celery task."""
        wire = {"exc_type": type(error).__name__, "exc_message": error.args, "exc_module": type(error).__module__}
        now = datetime.now(UTC).isoformat()
        record = {"status": "FAILURE", "result": wire, "traceback": None, "task_id": job_id, "date_done": now}
        self._store(job_id, record)

    def forget(self, job_id: str) -> None:
        """Remove the record of a job that could not be sent."""
        with _typed_errors():
            self._redis.delete(STATE_KEY.format(job_id=job_id))

    def read(self, job_id: str) -> JobState:
        """The job's state now.

        Raises:
            UnknownJob: no record of that id.
            InvalidMessage: the record cannot be read.
        """
        with _typed_errors():
            stored = self._redis.get(STATE_KEY.format(job_id=job_id))
        if stored is None:
            problem = f"no job {job_id[:80]!r} is known here"
            raise UnknownJob(problem, "job_id", f"Records are kept for {self._lifetime / 86400:g} days")
        return _state(_record(cast(bytes, stored)))

    def wait(self, job_id: str, timeout: float | None) -> JobState:
        """The job's state once it is final, or as it is when `timeout` seconds are over (None waits for ever).

        A lost connection is not an answer: waiting goes on until the time is over, and only then raises.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._watch(job_id, until)
            except BrokerUnavailable:
                if until is not None and time.monotonic() >= until:
                    raise
                time.sleep(0.2)

    def write_progress(self, progress: dict[str, Progress]) -> None:
        """Publish the progress of several jobs in one round trip."""
        with _typed_errors(), self._redis.pipeline(transaction=False) as pipe:
            for job_id, value in progress.items():
                pipe.set(PROGRESS_KEY.format(job_id=job_id), value.model_dump_json(), ex=PROGRESS_LIFETIME)
            pipe.execute()

    def read_progress(self, job_id: str) -> Progress:
        """The newest progress; all zeros before the first step."""
        with _typed_errors():
            stored = self._redis.get(PROGRESS_KEY.format(job_id=job_id))
        try:
            return Progress.model_validate_json(cast(bytes, stored)) if stored else Progress()
        except ValidationError as error:
            raise _unreadable("progress", cast(bytes, stored)) from error

    def request_cancel(self, job_id: str) -> None:
        """Ask the worker that has the job, or will have it, to stop."""
        with _typed_errors():
            self._redis.set(CANCEL_KEY.format(job_id=job_id), b"1", ex=CANCEL_LIFETIME)

    def cancelled(self, job_ids: Sequence[str]) -> set[str]:
        """Those of the jobs that someone asked to cancel."""
        if not job_ids:
            return set()
        with _typed_errors():
            wishes = cast(list[bytes | None], self._redis.mget([CANCEL_KEY.format(job_id=one) for one in job_ids]))
        return {job_id for job_id, wish in zip(job_ids, wishes, strict=True) if wish is not None}

    def count_attempt(self, job_id: str) -> int:
        """Count that a worker starts the job now; 1 the first time."""
        key = ATTEMPTS_KEY.format(job_id=job_id)
        with _typed_errors(), self._redis.pipeline() as pipe:
            pipe.incr(key)
            pipe.expire(key, self._lifetime)
            return int(pipe.execute()[0])

    def _store(self, job_id: str, record: dict[str, Any]) -> None:
        key = STATE_KEY.format(job_id=job_id)
        with _typed_errors(), self._redis.pipeline() as pipe:
            text = json.dumps(record)
            pipe.set(key, text, ex=self._lifetime)
            pipe.publish(key, text)
            pipe.execute()

    def _watch(self, job_id: str, until: float | None) -> JobState:
        state = self.read(job_id)
        if state.status.is_final:
            return state
        with _typed_errors(), self._redis.pubsub(ignore_subscribe_messages=True) as news:
            news.subscribe(STATE_KEY.format(job_id=job_id))  # pyright: ignore[reportUnknownMemberType]
            # Read again only after subscribing: what happened in between would otherwise go unseen.
            while not (state := self.read(job_id)).status.is_final:
                left = LOOK_AGAIN if until is None else min(LOOK_AGAIN, until - time.monotonic())
                if left <= 0:
                    break
                self._next_message(news, left)
        return state

    @staticmethod
    def _next_message(news: Any, seconds: float) -> None:
        until = time.monotonic() + seconds
        # A subscription's own confirmation comes back as None at once: it is no news.
        while (left := until - time.monotonic()) > 0 and news.get_message(timeout=left) is None:
            continue


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        remedy = "Check OMNIFLEET_REDIS_URL and that Redis runs"
        raise BrokerUnavailable(f"Redis does not answer: {error}", "redis_url", remedy) from error


def _record(stored: bytes) -> dict[str, Any]:
    try:
        record: object = json.loads(stored)
    except ValueError as error:
        raise _unreadable("state", stored) from error
    if not isinstance(record, dict):
        raise _unreadable("state", stored)
    return cast(dict[str, Any], record)


def _unreadable(what: str, stored: bytes) -> InvalidMessage:
    details = {"payload": stored[:500].decode("utf-8", "replace")}
    return InvalidMessage(f"the {what} in Redis is no record", what, "Upgrade whichever side is older", details)


def _state(record: dict[str, Any]) -> JobState:
    # Celery's remaining states (PENDING, RECEIVED, custom ones) all mean that nothing is decided yet.
    status = STATUS_OF.get(str(record.get("status")), JobStatus.QUEUED)
    outcome = record.get("result")
    match status:
        case JobStatus.SUCCEEDED:
            return _success(outcome)
        case JobStatus.CANCELLED:
            return JobState(status=status, error=JobCancelled("the job was revoked"))
        case JobStatus.FAILED | JobStatus.RETRYING:
            error = _error(outcome)
            return JobState(status=JobStatus.CANCELLED if isinstance(error, JobCancelled) else status, error=error)
        case _:
            return JobState(status=status)


def _error(outcome: object) -> OmnifleetError:
    if not isinstance(outcome, dict) or "exc_type" not in outcome:
        return JobFailed("the worker left no reason")
    wire = cast(dict[str, Any], outcome)
    return error_from_wire(str(wire["exc_type"]), wire.get("exc_message") or ())


def _success(outcome: object) -> JobState:
    try:
        return JobState(status=JobStatus.SUCCEEDED, result=read_result(outcome))
    except (InvalidMessage, ValidationError) as error:
        failure = error if isinstance(error, OmnifleetError) else InvalidMessage(str(error), "result")
        return JobState(status=JobStatus.FAILED, error=failure)
