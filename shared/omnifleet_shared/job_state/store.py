"""States of jobs as producers see them: states, progress and callbacks to read, outcomes to wait for, cancellation.

Records are read with redis-py and not with Celery's AsyncResult, so that waiting survives lost connections and needs no
Celery state in the caller's threads.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

from redis import Redis
from tenacity import Retrying, retry_if_exception_type, wait_fixed

from ..errors import BrokerUnavailable, OmnifleetError
from ..keys import CANCEL_CHANNEL, CANCEL_KEY, PROGRESS_KEY, PROGRESS_LIFETIME
from ..redis_client import KEPT_CONNECTIONS, connect_redis, refuse_eviction, typed_redis_errors
from ..schema.callback import CallbackDelivery
from ..schema.job_state import STATE_KEY, JobState, failure_record, read_state
from ..schema.parts import StreamedPart
from ..schema.results import Progress, Route
from ..settings import FleetSettings
from .batch_waiter import RedisResultWaiter
from .queries import CANCEL, Query, callback_query, parts_query, progress_query, route_query, run_cancel, state_query

LISTEN_SECONDS = 1.0
"""Seconds after which a waiter sees that a job's record has vanished."""
RECONNECT = 0.2
"""Seconds between two tries to reach a Redis that is away."""
T = TypeVar("T")
# DEL comes first: Redis refuses the first write of a script when memory is full, and none after it.
WRITE_PROGRESS = f"""
for place, key in ipairs(KEYS) do
  redis.call('DEL', key)
  redis.call('SET', key, ARGV[place], 'EX', {PROGRESS_LIFETIME})
end
"""


class JobStates:
    """Reads the states of a fleet's jobs. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, lifetime: int) -> None:
        self._redis = redis
        self._lifetime = lifetime
        self._waiters: deque[RedisResultWaiter] = deque()
        self._cancel, self._write_progress = (
            cast(Any, redis.register_script(script)) for script in (CANCEL, WRITE_PROGRESS)
        )
        self._cancel_pubsub: Any = None

    @classmethod
    def connect(cls, settings: FleetSettings) -> JobStates:
        """Read states in the Redis of these settings. Raises InvalidSetting for a URL that is none of Redis."""
        return cls(connect_redis(settings), settings.result_lifetime)

    def close(self) -> None:
        """Close the connections to Redis."""
        while self._waiters:
            self._waiters.pop().close()
        if self._cancel_pubsub is not None:
            self._cancel_pubsub.close()
        self._redis.close()

    def check_redis(self) -> None:
        """Raise BrokerUnavailable unless Redis answers, and InvalidSetting where it may evict records."""
        refuse_eviction(self._redis)

    def read(self, job_id: str) -> JobState:
        """Read the job's state.

        Raises:
            UnknownJob: no record of that id.
            InvalidMessage: the record cannot be read.
        """
        return self._ask(state_query(job_id, self._lifetime))

    def wait(self, job_id: str, timeout: float | None) -> JobState:
        """Wait for the job's final state; gives the state as it is after `timeout` seconds (None waits for ever).

        Waiting goes on while Redis is away; BrokerUnavailable is raised only once the time is over.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        with suppress(BrokerUnavailable):
            return self._wait(job_id, until)
        tries = Retrying(
            retry=retry_if_exception_type(BrokerUnavailable),
            wait=wait_fixed(RECONNECT),
            stop=lambda _: time.monotonic() >= until,
            reraise=True,
        )
        return tries(self._wait, job_id, until)

    def write_progress(self, progress: dict[str, Progress]) -> None:
        """Publish the progress of several jobs in one round trip."""
        keys = [PROGRESS_KEY.format(job_id=job_id) for job_id in progress]
        with typed_redis_errors():
            self._write_progress(keys=keys, args=[value.model_dump_json() for value in progress.values()])

    def read_progress(self, job_id: str) -> Progress:
        """Read the newest progress; all zeros before the first step."""
        return self._ask(progress_query(job_id))

    def read_parts(self, job_id: str, after: int) -> list[StreamedPart]:
        """Read the parts that the job has given out behind number `after`."""
        return self._ask(parts_query(job_id, after))

    def read_callback(self, job_id: str) -> CallbackDelivery | None:
        """Read the delivery of the job's callback; None before its outcome, or where none was requested."""
        return self._ask(callback_query(job_id))

    def read_route(self, job_id: str) -> Route | None:
        """Read where the job was routed to; None where there was no choice."""
        return self._ask(route_query(job_id))

    def request_cancel(self, job_id: str) -> None:
        """Ask whichever worker runs the job, now or later, to stop."""
        with typed_redis_errors():
            run_cancel(self._cancel, job_id)

    def record_unsent(self, job_ids: Sequence[str], error: OmnifleetError) -> None:
        """Record that these tasks are never sent, and why, where nothing is recorded of them yet."""
        for job_id in job_ids:
            key, record = STATE_KEY.format(job_id=job_id), failure_record(job_id, error)
            with typed_redis_errors():
                if self._redis.set(key, record, ex=self._lifetime, nx=True):
                    self._redis.publish(key, record)

    def wait_for_cancel(self, seconds: float) -> str | None:
        """Wait up to so many seconds for a cancel request; gives the job's id, or None. For use by one thread.

        Requests made while a connection is lost go unheard: check `cancelled` too.
        """
        with typed_redis_errors():
            if self._cancel_pubsub is None:
                self._cancel_pubsub = cast(Any, self._redis).pubsub(ignore_subscribe_messages=True)
                self._cancel_pubsub.subscribe(CANCEL_CHANNEL)
            message = self._cancel_pubsub.get_message(timeout=seconds)
        return message["data"].decode() if message else None

    def cancelled(self, job_ids: Sequence[str]) -> set[str]:
        """Give those of the jobs whose cancellation was requested."""
        if not job_ids:
            return set()
        with typed_redis_errors():
            requests = cast(list[bytes | None], self._redis.mget([CANCEL_KEY.format(job_id=one) for one in job_ids]))
        return {job_id for job_id, request in zip(job_ids, requests, strict=True) if request is not None}

    def _ask(self, query: Query[T]) -> T:
        with typed_redis_errors():
            reply = cast(Any, self._redis).execute_command(*query.command)
        return query.read(reply)

    def _wait(self, job_id: str, until: float) -> JobState:
        read_at = time.monotonic()
        state = self.read(job_id)  # most of many that are waited for in turn have ended, and need no subscription
        if state.status.is_final:
            return state
        with self._waiter(job_id, read_at) as waiter:
            while (left := until - time.monotonic()) > 0:
                if ended := waiter.wait(min(left, LISTEN_SECONDS)):
                    return ended[0][1]
                if waiter.unknown:
                    self.read(job_id)  # raises UnknownJob, unless a record is there again
        return self.read(job_id)

    @contextmanager
    def _waiter(self, job_id: str, read_at: float) -> Iterator[RedisResultWaiter]:
        """Lend a waiter. A few keep their connections for the next ones: making one costs more than a short wait."""
        waiter = self._waiters.pop() if self._waiters else RedisResultWaiter(self._redis, read_state)
        waiter.add([job_id], read_at=read_at)
        try:
            yield waiter
        finally:
            waiter.discard([job_id])
            if len(self._waiters) >= KEPT_CONNECTIONS:
                waiter.disconnect()
            else:
                self._waiters.append(waiter)
