"""The client for asyncio: what `Client` does, without blocking the event loop."""

from __future__ import annotations

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from omnifleet_shared import traces
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage

from .aside import Aside
from .async_handle import AsyncJobHandle
from .async_transport import AsyncCeleryTransport, AsyncTransport
from .calls import Call, Calls, JobMaker
from .client import settings_and_storage
from .results import AudioResult, JobResult, TextResult


class AsyncClient(
    Calls[Coroutine[Any, Any, AsyncJobHandle[TextResult]], Coroutine[Any, Any, AsyncJobHandle[AudioResult]]]
):
    """Sends jobs to a fleet. Close it, or use it as an asynchronous context manager.

    The calls of `Client`, each to be awaited: `job = await omni.generate("t2a", "rain")`. A call that is cancelled
    while it sends may still send its job.

    Requests are checked, uploaded and sent on 4 threads. However many jobs are waited for, that and all reading takes
    at most 7 connections to Redis. A client belongs to the event loop in which it is first used, and raises
    RuntimeError in another: make one for each, or share a `Client` between threads.

    Args:
        settings: all settings at once; from `OMNIFLEET_*` in the environment by default.
        redis_url: overrides the setting.
        storage: overrides the setting with a URI, or is an opened `Storage` itself.
        s3_endpoint: overrides the setting.
        queue: overrides the setting.
        transport: carries the jobs instead of Celery; it is the caller's to close.

    Raises:
        InvalidSetting: a setting that does not parse.
    """

    def __init__(
        self,
        settings: FleetSettings | None = None,
        *,
        redis_url: str | None = None,
        storage: str | Storage | None = None,
        s3_endpoint: str | None = None,
        queue: str | None = None,
        transport: AsyncTransport | None = None,
    ) -> None:
        overrides = {"redis_url": redis_url, "s3_endpoint": s3_endpoint, "queue": queue}
        self._settings, self._storage = settings_and_storage(settings, storage, overrides)
        self._maker = JobMaker(self._settings, self._storage)
        self._aside = Aside()
        self._transport = transport or AsyncCeleryTransport(self._settings, self._aside)
        self._closes_transport = transport is None
        self._closed = False

    def job(self, job_id: str) -> AsyncJobHandle[JobResult]:
        """The handle of a job by its id, from whichever process it was sent. Not looked up before it is used."""
        return self._handle(job_id)

    async def close(self) -> None:
        """Close the connections that this client opened."""
        if self._closed:
            return
        self._closed = True
        if self._closes_transport:
            await self._transport.close()
        await self._aside.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _carry(self, call: Call) -> AsyncJobHandle[Any]:
        with traces.span(call.title, "client"):
            job, key = await self._aside.run(self._maker.make, call)
            return self._handle(await self._transport.submit(job, key))

    def _handle(self, job_id: str) -> AsyncJobHandle[Any]:
        return AsyncJobHandle(job_id, self._transport, self._storage, self._settings.url_lifetime, self._aside)
