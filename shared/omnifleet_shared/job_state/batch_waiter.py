"""Waiters for the outcomes of many jobs in one thread: one connection and one subscription for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast

from redis import Redis

from ..errors import InvalidMessage, UnknownJob
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.job_state import JobState, read_state
from ..schema.results import JobStatus
from ..settings import FleetSettings
from .watched_jobs import WatchedJobs, channel_of

POLL_PAUSE = 0.01
"""Seconds between two reads where nothing is published."""

Outcomes = list[tuple[str, JobState]]
"""Ids of jobs that came to an end, with their final states."""
ReadState = Callable[[bytes], JobState]
"""Parses a state record."""


class BatchResultWaiter(Protocol):
    """Waits for any of many jobs. For use by one thread."""

    unknown: set[str]
    """Jobs that had no record when they were last read: not submitted yet, or expired since."""

    def add(self, job_ids: Iterable[str]) -> None:
        """Wait for these jobs too."""

    def discard(self, job_ids: Iterable[str]) -> None:
        """Stop waiting for these jobs."""

    def wait(self, seconds: float) -> Outcomes:
        """Give the jobs that have come to an end, each of them once; empty where none does within so many seconds.

        Raises:
            BrokerUnavailable: Redis does not answer; nothing is forgotten, and the next call goes on.
        """
        ...

    def close(self) -> None:
        """Close the connections to Redis."""


def state_or_failure(stored: bytes) -> JobState:
    """Parse a state record; one that cannot be read is a failure with InvalidMessage as its error."""
    try:
        return read_state(stored)
    except InvalidMessage as error:
        return JobState(status=JobStatus.FAILED, error=error)


class RedisResultWaiter:
    """Waits for what workers publish in Redis; see `BatchResultWaiter`.

    Args:
        redis: takes one connection for the subscription and one for each read.
        read: parses the records; what it raises, `wait` raises.
    """

    def __init__(self, redis: Redis, read: ReadState = state_or_failure) -> None:
        self._redis = cast(Any, redis)
        self._pubsub: Any = self._redis.pubsub()
        self._read_state = read
        self._jobs = WatchedJobs()
        self.unknown: set[str] = set()

    @classmethod
    def connect(cls, settings: FleetSettings) -> RedisResultWaiter:
        """Wait for jobs in the Redis of these settings. Raises InvalidSetting for a URL that is none of Redis."""
        return cls(connect_redis(settings))

    def add(self, job_ids: Iterable[str], *, read_at: float | None = None) -> None:
        """See `BatchResultWaiter`, and `WatchedJobs` for states that the caller has read."""
        self._jobs.add(job_ids, read_at=read_at)

    def discard(self, job_ids: Iterable[str]) -> None:
        """See `BatchResultWaiter`."""
        gone = set(job_ids)
        self._jobs.discard(gone)
        self.unknown -= gone

    def wait(self, seconds: float) -> Outcomes:
        """See `BatchResultWaiter`."""
        until = time.monotonic() + seconds
        try:
            with typed_redis_errors():
                while not (ended := self._read() or self._listen(until - time.monotonic())):
                    if time.monotonic() >= until:
                        return []
        except BaseException:
            self.disconnect()  # nobody knows what was sent and what was read
            raise
        self.discard(job_id for job_id, _ in ended)
        return ended

    def close(self) -> None:
        """See `BatchResultWaiter`."""
        self._pubsub.close()
        self._redis.close()

    def disconnect(self) -> None:
        """Give up the subscription and its connection; the next `wait` makes another."""
        self._pubsub.close()
        self._jobs.resubscribe()

    def _read(self) -> Outcomes:
        self._subscribe()
        self._jobs.poll(time.monotonic())
        ended: Outcomes = []
        while job_ids := self._jobs.take_unread():
            for job_id, stored in zip(job_ids, self._redis.mget(map(channel_of, job_ids)), strict=True):
                if stored is None:
                    self.unknown.add(job_id)
                else:
                    ended += self._outcome(job_id, stored)
        return ended

    def _subscribe(self) -> None:
        joined, left = self._jobs.take_subscriptions()
        if joined:
            self._pubsub.subscribe(*joined)
        if left:
            self._pubsub.unsubscribe(*left)

    def _listen(self, seconds: float) -> Outcomes:
        """Wait for one message, and take those that are there with it; up to so many seconds, or to the next poll."""
        ended: dict[str, JobState] = {}
        left = min(seconds, self._jobs.seconds_to_poll(time.monotonic()))
        message = self._pubsub.get_message(timeout=max(0.0, left))
        while message is not None:
            published = self._jobs.hear(message)
            if published is not None:
                ended.update(self._outcome(*published))
            message = self._pubsub.get_message(timeout=0)
        return list(ended.items())

    def _outcome(self, job_id: str, stored: bytes) -> Iterator[tuple[str, JobState]]:
        self.unknown.discard(job_id)
        state = self._read_state(stored)
        if state.status.is_final:
            yield job_id, state


class PollingResultWaiter:
    """Reads states one by one, for transports whose jobs are in this very process; see `BatchResultWaiter`.

    Args:
        read: gives a job's state, or raises UnknownJob.
    """

    def __init__(self, read: Callable[[str], JobState]) -> None:
        self._read = read
        self._watched: dict[str, None] = {}
        self.unknown: set[str] = set()

    def add(self, job_ids: Iterable[str]) -> None:
        """See `BatchResultWaiter`."""
        self._watched.update(dict.fromkeys(job_ids))

    def discard(self, job_ids: Iterable[str]) -> None:
        """See `BatchResultWaiter`."""
        for job_id in job_ids:
            self._watched.pop(job_id, None)
            self.unknown.discard(job_id)

    def wait(self, seconds: float) -> Outcomes:
        """See `BatchResultWaiter`."""
        until = time.monotonic() + seconds
        while not (ended := list(self._read_all())) and time.monotonic() < until:
            time.sleep(min(POLL_PAUSE, seconds))
        self.discard(job_id for job_id, _ in ended)
        return ended

    def close(self) -> None:
        """See `BatchResultWaiter`."""

    def _read_all(self) -> Iterator[tuple[str, JobState]]:
        self.unknown.clear()
        for job_id in self._watched:
            try:
                state = self._read(job_id)
            except UnknownJob:
                self.unknown.add(job_id)
                continue
            if state.status.is_final:
                yield job_id, state
