"""Waiting for many jobs at once: one connection and one subscription for all of them, however many there are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, cast

from ..errors import InvalidMessage, UnknownJob
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.job_state import STATE_KEY, JobState, read_state
from ..schema.results import JobStatus
from ..settings import FleetSettings

POLL_INTERVAL = 1.0
"""Seconds after which all states are read without having been told: a message may be lost with its connection."""
LOOKED_AT_ONCE = 500
"""Records that one command reads."""
POLL = 0.01
"""Seconds between looks where nobody tells."""

Final = list[tuple[str, JobState]]
"""Jobs that came to an end, with their last states."""


class BatchResultWaiter(Protocol):
    """Waits for any of many jobs. For one thread."""

    unknown: set[str]
    """Those of the jobs that had no record when they were last looked at: not submitted yet, or forgotten since."""

    def add(self, job_ids: Iterable[str]) -> None:
        """Wait for these jobs too."""

    def discard(self, job_ids: Iterable[str]) -> None:
        """Wait for these no more."""

    def wait(self, seconds: float) -> Final:
        """Those that have come to an end, each of them once; nothing where none does within so many seconds.

        Raises:
            BrokerUnavailable: Redis does not answer; nothing is forgotten, and the next call goes on.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""


class RedisResultWaiter:
    """Hears what workers publish, and looks for itself from time to time."""

    def __init__(self, settings: FleetSettings) -> None:
        self._redis = cast(Any, connect_redis(settings))
        self._news: Any = self._redis.pubsub(ignore_subscribe_messages=True)
        self._watched: set[str] = set()
        self._new: set[str] = set()
        self._done: set[str] = set()
        """Not watched any more, and still subscribed to."""
        self._look_at = 0.0
        self.unknown: set[str] = set()

    def add(self, job_ids: Iterable[str]) -> None:
        """See `BatchResultWaiter`."""
        self._new.update(job_ids)

    def discard(self, job_ids: Iterable[str]) -> None:
        """See `BatchResultWaiter`."""
        gone = set(job_ids)
        self._new -= gone
        self.unknown -= gone
        self._done |= gone & self._watched
        self._watched -= gone

    def wait(self, seconds: float) -> Final:
        """See `BatchResultWaiter`."""
        until = time.monotonic() + seconds
        with typed_redis_errors():
            while not (ended := self._look() or self._hear(max(0.0, until - time.monotonic()))):
                if time.monotonic() >= until:
                    return []
        self.discard(job_id for job_id, _ in ended)
        return ended

    def close(self) -> None:
        """See `BatchResultWaiter`."""
        self._news.close()
        self._redis.close()

    def _look(self) -> Final:
        """Read the states of new jobs, and from time to time of all."""
        if self._done:
            self._news.unsubscribe(*map(_channel, self._done))
            self._done.clear()
        look_at = set(self._new)
        if look_at:
            # Before they are read: what happens in between would otherwise go unseen.
            self._news.subscribe(*map(_channel, look_at))
            self._watched |= look_at
            self._new.clear()
        if time.monotonic() >= self._look_at:
            look_at, self._look_at = self._watched, time.monotonic() + POLL_INTERVAL
        return list(self._read(sorted(look_at)))

    def _read(self, job_ids: list[str]) -> Iterator[tuple[str, JobState]]:
        for start in range(0, len(job_ids), LOOKED_AT_ONCE):
            some = job_ids[start : start + LOOKED_AT_ONCE]
            for job_id, stored in zip(some, self._redis.mget(map(_channel, some)), strict=True):
                if stored is None:
                    self.unknown.add(job_id)
                else:
                    yield from self._told(job_id, stored)

    def _hear(self, seconds: float) -> Final:
        """What is published within so many seconds: after the first message only what is there already."""
        ended: dict[str, JobState] = {}
        message = self._news.get_message(timeout=min(seconds, POLL_INTERVAL))
        while message is not None:
            job_id = cast(bytes, message["channel"]).decode().removeprefix(_channel(""))
            if job_id in self._watched:
                ended.update(self._told(job_id, message["data"]))
            message = self._news.get_message(timeout=0)
        return list(ended.items())

    def _told(self, job_id: str, stored: bytes) -> Iterator[tuple[str, JobState]]:
        self.unknown.discard(job_id)
        state = _state(stored)
        if state.status.is_final:
            yield job_id, state


class PollingResultWaiter:
    """Reads states one by one: for transports whose jobs are in this very process.

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

    def wait(self, seconds: float) -> Final:
        """See `BatchResultWaiter`."""
        until = time.monotonic() + seconds
        while not (ended := list(self._look())) and time.monotonic() < until:
            time.sleep(min(POLL, seconds))
        self.discard(job_id for job_id, _ in ended)
        return ended

    def close(self) -> None:
        """See `BatchResultWaiter`."""

    def _look(self) -> Iterator[tuple[str, JobState]]:
        self.unknown.clear()
        for job_id in self._watched:
            try:
                state = self._read(job_id)
            except UnknownJob:
                self.unknown.add(job_id)
                continue
            if state.status.is_final:
                yield job_id, state


def _channel(job_id: str) -> str:
    """A state is published on a channel of its key's name."""
    return STATE_KEY.format(job_id=job_id)


def _state(stored: bytes) -> JobState:
    try:
        return read_state(stored)
    except InvalidMessage as error:
        return JobState(status=JobStatus.FAILED, error=error)
