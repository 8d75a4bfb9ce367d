"""`JobStates` for asyncio: the same reads, on a handful of connections however many coroutines read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar, cast

from redis.asyncio import Redis

from ..redis_client import connect_async_redis, typed_redis_errors
from ..schema.callback import CallbackDelivery
from ..schema.job_state import JobState
from ..schema.parts import StreamedPart
from ..schema.results import Progress, Route
from ..settings import FleetSettings
from .async_waiter import AsyncResultWaiter
from .queries import CANCEL, Query, callback_query, parts_query, progress_query, route_query, run_cancel, state_query

T = TypeVar("T")
CONNECTIONS = 2
"""Commands sent at once, each on its own connection; one more connection is subscribed to outcomes."""


class AsyncJobStates:
    """Reads the states of a fleet's jobs in one event loop. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, subscriber: Redis, lifetime: int) -> None:
        self._redis = redis
        self._subscriber = subscriber
        self._lifetime = lifetime
        self._cancel = cast(Any, redis).register_script(CANCEL)
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._waiter = AsyncResultWaiter(subscriber, self._records)

    @classmethod
    def connect(cls, settings: FleetSettings) -> AsyncJobStates:
        """Read states in the Redis of these settings. Raises InvalidSetting for a URL that is none of Redis."""
        # Two tasks use the subscription's connection: neither may make it anew behind the other's back.
        subscriber = connect_async_redis(settings, retry=False)
        return cls(connect_async_redis(settings), subscriber, settings.result_lifetime)

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._waiter.close()
        for redis in (self._redis, self._subscriber):
            await cast(Any, redis).aclose()

    async def read(self, job_id: str) -> JobState:
        """See `JobStates.read`."""
        return await self._ask(state_query(job_id, self._lifetime))

    async def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `JobStates.wait`. All waiters share one subscription."""
        try:
            async with asyncio.timeout(timeout):
                record = await self._waiter.outcome(job_id)
        except TimeoutError:
            return await self.read(job_id)
        return state_query(job_id, self._lifetime).read(record)

    async def read_progress(self, job_id: str) -> Progress:
        """See `JobStates.read_progress`."""
        return await self._ask(progress_query(job_id))

    async def read_parts(self, job_id: str, after: int) -> list[StreamedPart]:
        """See `JobStates.read_parts`."""
        return await self._ask(parts_query(job_id, after))

    async def read_callback(self, job_id: str) -> CallbackDelivery | None:
        """See `JobStates.read_callback`."""
        return await self._ask(callback_query(job_id))

    async def read_route(self, job_id: str) -> Route | None:
        """See `JobStates.read_route`."""
        return await self._ask(route_query(job_id))

    async def request_cancel(self, job_id: str) -> None:
        """See `JobStates.request_cancel`."""
        async with self._slots:
            with typed_redis_errors():
                await run_cancel(self._cancel, job_id)

    async def _ask(self, query: Query[T]) -> T:
        async with self._slots:
            with typed_redis_errors():
                reply = await cast(Any, self._redis).execute_command(*query.command)
        return query.read(reply)

    async def _records(self, keys: Sequence[str]) -> list[bytes | None]:
        async with self._slots:
            with typed_redis_errors():
                return cast(list[bytes | None], await cast(Any, self._redis).mget(keys))
