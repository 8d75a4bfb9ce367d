"""Waiting for the outcomes of any number of jobs in an event loop, all on one subscription.

One connection hears of every job that is waited for, whoever waits and however often.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, cast

from redis.asyncio import Redis

from ..errors import BrokerUnavailable, InvalidMessage, PermanentError
from ..redis_client import typed_redis_errors
from ..schema.job_state import read_state
from .watched_jobs import READ_AT_ONCE, WatchedJobs, channel_of

logger = logging.getLogger(__name__)
LISTEN_SECONDS = 1.0
"""Longest wait for one message of the subscription."""
RECONNECT = 0.2
"""Seconds between two tries to reach a Redis that is away."""

ReadRecords = Callable[[Sequence[str]], Awaitable[list[bytes | None]]]


class AsyncResultWaiter:
    """Serves everybody who waits for an outcome in one event loop.

    Args:
        redis: subscribes with one connection; it retries nothing by itself.
        read: gives the records of some keys.
    """

    def __init__(self, redis: Redis, read: ReadRecords) -> None:
        self._redis = redis
        self._read = read
        self._waiters: dict[str, set[asyncio.Future[bytes | None]]] = {}
        # A poll reads some of the jobs only: thousands of records at once would hold up the event loop.
        self._jobs = WatchedJobs(poll_limit=READ_AT_ONCE)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def outcome(self, job_id: str) -> bytes | None:
        """Wait for the job's final record; gives None where there is no such job. Waits for a Redis that is away.

        Raises:
            InvalidSetting: Redis refuses the password.
        """
        waiter: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._join(job_id, waiter)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="omnifleet-states")
        try:
            return await waiter
        finally:
            self._leave(job_id, waiter)

    async def close(self) -> None:
        """Close the subscription; nobody may wait any more."""
        if self._task is not None:
            await _end(self._task)

    def _join(self, job_id: str, waiter: asyncio.Future[bytes | None]) -> None:
        self._waiters.setdefault(job_id, set()).add(waiter)
        self._jobs.add([job_id])
        self._changed.set()

    def _leave(self, job_id: str, waiter: asyncio.Future[bytes | None]) -> None:
        self._waiters[job_id].discard(waiter)
        if not self._waiters[job_id]:
            del self._waiters[job_id]
            self._jobs.discard([job_id])
            self._changed.set()

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except PermanentError as error:
                self._give_up(error)
                return
            except BrokerUnavailable as error:
                logger.debug("outcomes go unheard: %s", error, extra={"action": "outcomes_unheard"})
            except Exception:
                logger.exception("waiting for outcomes failed, and goes on", extra={"action": "outcomes_failed"})
            if not self._waiters:
                return
            await asyncio.sleep(RECONNECT)

    async def _follow(self) -> None:
        self._jobs.resubscribe()
        async with cast(Any, self._redis).pubsub() as pubsub:
            with typed_redis_errors():
                await pubsub.connect()
            listening = asyncio.create_task(self._listen(pubsub), name="omnifleet-outcomes")
            try:
                while not listening.done():
                    await self._subscribe(pubsub)
                    await self._read_unread()
                    await self._pause()
                await listening
            finally:
                await _end(listening)

    async def _subscribe(self, pubsub: Any) -> None:
        self._changed.clear()
        joined, left = self._jobs.take_subscriptions()
        with typed_redis_errors():
            for channels in _chunks(joined):
                await pubsub.subscribe(*channels)
            for channels in _chunks(left):
                await pubsub.unsubscribe(*channels)

    async def _listen(self, pubsub: Any) -> None:
        try:
            while True:
                with typed_redis_errors():
                    message = await pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None and (published := self._jobs.hear(message)):
                    self._settle(*published)
                if self._jobs.has_unread:
                    self._changed.set()
                # What has arrived already is read without a pause: others have their turn too.
                await asyncio.sleep(0)
        finally:
            self._changed.set()

    async def _read_unread(self) -> None:
        while job_ids := self._jobs.take_unread():
            for job_id, record in zip(job_ids, await self._read([*map(channel_of, job_ids)]), strict=True):
                self._settle(job_id, record)

    async def _pause(self) -> None:
        """Wait until something has changed, or the next poll is due."""
        now = asyncio.get_running_loop().time
        with suppress(TimeoutError):
            async with asyncio.timeout(self._jobs.seconds_to_poll(now())):
                await self._changed.wait()
        self._jobs.poll(now())

    def _settle(self, job_id: str, record: bytes | None) -> None:
        if record is not None and not _is_final(record):
            return
        for waiter in self._waiters.get(job_id, ()):
            if not waiter.done():
                waiter.set_result(record)

    def _give_up(self, error: PermanentError) -> None:
        for waiter in [one for some in self._waiters.values() for one in some if not one.done()]:
            # Another instance for every waiter: a raised error carries the traceback of whoever raised it.
            waiter.set_exception(copy.copy(error))


async def _end(task: asyncio.Task[None]) -> None:
    # More than once: `wait_for` of Python 3.11, which redis-py uses, forgets a cancellation that comes as it finishes.
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
    await asyncio.gather(task, return_exceptions=True)


def _is_final(record: bytes) -> bool:
    try:
        return read_state(record).status.is_final
    except InvalidMessage:
        return True  # nothing better will come; whoever waits reads it and gets the error


def _chunks(channels: Sequence[str]) -> Iterator[Sequence[str]]:
    return (channels[start : start + READ_AT_ONCE] for start in range(0, len(channels), READ_AT_ONCE))
