"""Waiting for the outcomes of any number of jobs on one subscription, in an event loop.

One connection hears of every job that is waited for, whoever waits and however often. What happened before Redis had
subscribed, or while a connection was lost, went unheard: so a state is read each time that its subscription is
confirmed, and besides some of them every second.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

from redis.asyncio import Redis

from ..errors import BrokerUnavailable, InvalidMessage, PermanentError
from ..redis_client import typed_redis_errors
from ..schema.job_state import STATE_KEY, read_state

logger = logging.getLogger(__name__)
POLL_INTERVAL = 1.0
"""Seconds after which states are read without having been told: a message may be lost with its connection."""
AT_ONCE = 500
"""Jobs in one command."""
RECONNECT = 0.2
"""Seconds between two tries to reach a Redis that is away."""
PREFIX = STATE_KEY.format(job_id="")

ReadRecords = Callable[[Sequence[str]], Awaitable[list[bytes | None]]]


class AsyncResultWaiter:
    """Everybody who waits for an outcome in one event loop.

    Args:
        redis: subscribes with one connection; it tries nothing again by itself.
        read: the records of some keys.
    """

    def __init__(self, redis: Redis, read: ReadRecords) -> None:
        self._redis = redis
        self._read = read
        self._waiters: dict[str, set[asyncio.Future[bytes | None]]] = {}
        self._joined: set[str] = set()
        self._left: set[str] = set()
        self._unread: set[str] = set()
        self._round: list[str] = []
        self._looked_at = 0.0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def outcome(self, job_id: str) -> bytes | None:
        """The job's record once it is final; None where there is no such job. Waits for a Redis that is away.

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
        """Give up the subscription; nobody may wait any more."""
        if self._task is not None:
            await _end(self._task)

    def _join(self, job_id: str, waiter: asyncio.Future[bytes | None]) -> None:
        if job_id not in self._waiters:
            self._waiters[job_id] = set()
            if job_id in self._left:
                self._left.discard(job_id)
            else:
                self._joined.add(job_id)
        # Whoever comes later may have missed what the others were told.
        self._unread.add(job_id)
        self._waiters[job_id].add(waiter)
        self._changed.set()

    def _leave(self, job_id: str, waiter: asyncio.Future[bytes | None]) -> None:
        self._waiters[job_id].discard(waiter)
        if self._waiters[job_id]:
            return
        del self._waiters[job_id]
        self._unread.discard(job_id)
        if job_id in self._joined:
            self._joined.discard(job_id)
        else:
            self._left.add(job_id)
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
        self._joined, self._left = set(self._waiters), set()
        async with cast(Any, self._redis).pubsub() as news:
            with typed_redis_errors():
                await news.connect()
            listening = asyncio.create_task(self._listen(news), name="omnifleet-news")
            try:
                while not listening.done():
                    await self._subscribe(news)
                    await self._look()
                    await self._pause()
                await listening
            finally:
                await _end(listening)

    async def _subscribe(self, news: Any) -> None:
        self._changed.clear()
        joined, self._joined = self._joined, set()
        left, self._left = self._left, set()
        with typed_redis_errors():
            for some in _chunks(joined):
                await news.subscribe(*map(_key, some))
            for some in _chunks(left):
                await news.unsubscribe(*map(_key, some))

    async def _listen(self, news: Any) -> None:
        try:
            while True:
                with typed_redis_errors():
                    message = await news.get_message(timeout=POLL_INTERVAL)
                if message is not None:
                    self._hear(message["type"], message["channel"].decode().removeprefix(PREFIX), message["data"])
                # What has arrived already is read without a pause: others have their turn too.
                await asyncio.sleep(0)
        finally:
            self._changed.set()

    def _hear(self, kind: str, job_id: str, record: bytes) -> None:
        if kind == "message":
            self._settle(job_id, record)
        elif kind == "subscribe" and job_id in self._waiters:
            self._unread.add(job_id)
            self._changed.set()

    async def _look(self) -> None:
        while self._unread:
            some = [self._unread.pop() for _ in range(min(AT_ONCE, len(self._unread)))]
            for job_id, record in zip(some, await self._read([*map(_key, some)]), strict=True):
                self._settle(job_id, record)

    async def _pause(self) -> None:
        """Until something changed. Each second, busy or not, some more are to be read, all in their turn."""
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_INTERVAL):
                await self._changed.wait()
        if loop.time() < self._looked_at + POLL_INTERVAL:
            return
        self._looked_at = loop.time()
        if not self._round:
            self._round = list(self._waiters)
        some, self._round = self._round[:AT_ONCE], self._round[AT_ONCE:]
        self._unread.update(job_id for job_id in some if job_id in self._waiters)

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
        return True  # nothing better will come; whoever waits reads it and is told


def _key(job_id: str) -> str:
    return STATE_KEY.format(job_id=job_id)


def _chunks(job_ids: Iterable[str]) -> Iterable[list[str]]:
    every = list(job_ids)
    return (every[start : start + AT_ONCE] for start in range(0, len(every), AT_ONCE))
