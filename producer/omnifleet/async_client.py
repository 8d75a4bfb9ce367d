"""The client for asyncio: what `Client` does, without blocking the event loop."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from omnifleet_shared.observability import tracing as traces
from omnifleet_shared.schema.base import check_tenant
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage

from .adapters import Adapters
from .async_adapters import AsyncAdapters
from .async_handle import AsyncJobHandle
from .async_voices import AsyncVoices
from .batch.outcome import Outcome
from .batch.sender import JobSender
from .batch.stream import OutcomeStream
from .client import settings_and_storage
from .request.calls import Calls
from .request.maker import JobMaker
from .request.request import Request
from .results.results import AudioResult, JobResult, TextResult
from .routing.route import KnownModel
from .transport.async_celery import AsyncCeleryTransport, AsyncJobTransport
from .transport.async_iterator import ThreadedIterator
from .transport.executor import BlockingExecutor
from .voices import Voices


class AsyncClient(
    Calls[Coroutine[Any, Any, AsyncJobHandle[TextResult]], Coroutine[Any, Any, AsyncJobHandle[AudioResult]]]
):
    """Sends jobs to a fleet. Close it, or use it as an asynchronous context manager.

    The calls of `Client`, each to be awaited: `job = await omni.generate("t2a", "rain")`. A call that is cancelled
    while it sends may still send its job.

    Requests are checked, uploaded and sent on 4 threads. However many jobs are waited for, that and all reading takes
    at most 7 connections to Redis. A client belongs to the event loop in which it is first used, in each
    process that is forked, and raises RuntimeError in another: make one for each, or share a `Client` between threads.

    Args:
        settings: all settings at once; from `OMNIFLEET_*` in the environment by default.
        redis_url: overrides the setting.
        storage: overrides the setting with a URI, or is an opened `Storage` itself.
        s3_endpoint: overrides the setting.
        queue: overrides the setting.
        tenant: overrides the setting.
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
        tenant: str | None = None,
        transport: AsyncJobTransport | None = None,
    ) -> None:
        overrides = {"redis_url": redis_url, "s3_endpoint": s3_endpoint, "queue": queue, "tenant": tenant}
        self._settings, self._storage = settings_and_storage(settings, storage, overrides)
        self._executor = BlockingExecutor()
        self._transport = transport or AsyncCeleryTransport(self._settings, self._executor)
        self._maker = JobMaker(
            self._settings,
            self._storage,
            lambda uris: self._transport.blocking.pending_deletion(uris),
            lambda queue: self._transport.blocking.workers(queue),
        )
        self._closes_transport = transport is None
        self._closed = False

    def batch(
        self, jobs: Iterable[Request | Mapping[str, Any]], *, in_flight: int | None = None, in_order: bool = False
    ) -> AsyncGenerator[Outcome]:
        """Do many jobs, and iterate over their outcomes, each as soon as it is there.

        Jobs are pulled from the iterator as others end, never more than `in_flight` ahead of what was given out, and
        their media are uploaded alongside. A job that fails, or is none, is an outcome with an `error` and leaves the
        others alone. Where Redis or the storage goes away meanwhile, the batch waits for it.

        Args:
            jobs: calls of `omnifleet.batch.understand`, `generate` and `edit`, which take the same arguments as the
                methods here, or mappings such as `{"task": "edit.add", "audio": "street.wav", "desc": "rain"}`.
            in_flight: jobs in the fleet at a time; by default twice what its workers hold at once, 16 at least.
            in_order: give the outcomes in the order of the jobs.

        Raises:
            InvalidJob: `in_flight` below 1.
            BrokerUnavailable, StorageUnavailable, StorageRefused, InvalidSetting: while iterating, before the first
                job was sent.
        """
        self._executor.check_loop()
        return ThreadedIterator(OutcomeStream(self.sender, jobs, in_flight, in_order)).items()

    def job(self, job_id: str) -> AsyncJobHandle[JobResult]:
        """Return the handle of a job by its id, whichever process sent it. It is not looked up before it is used."""
        return self._handle(job_id)

    def of_tenant(self, tenant: str) -> Self:
        """Make a client whose jobs are this tenant's, over the connections of this one, which stays the one to close.

        Raises:
            InvalidSetting: not a name of a tenant.
        """
        other = copy.copy(self)
        other._transport = self._transport.of_tenant(check_tenant(tenant))
        other._closed = True
        return other

    async def models(self) -> list[KnownModel]:
        """List the models of `OMNIFLEET_MODELS`, in its order, and then others with a ready worker.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        return await self._executor.run(self._maker.router.offered)

    @property
    def adapters(self) -> AsyncAdapters:
        """The named adapters of the storage: add, get, list and remove them."""
        return AsyncAdapters(Adapters(self._settings, self._storage), self._executor)

    @property
    def voices(self) -> AsyncVoices:
        """The named voices of the storage: add, get, list and remove them."""
        return AsyncVoices(Voices(self._settings, self._storage), self._executor)

    @property
    def sender(self) -> JobSender:
        """Sends the jobs of this client's batches."""
        return JobSender(self._settings, self._storage, self._transport.blocking)

    async def close(self) -> None:
        """Close the connections that this client opened."""
        if self._closed:
            return
        self._closed = True
        await self._executor.join()
        if self._closes_transport:
            await self._transport.close()
        await self._executor.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _submit(self, request: Request) -> AsyncJobHandle[Any]:
        with traces.span(request.title, "client"):
            made = await self._executor.run(self._maker.make, request)
            return self._handle(await self._transport.submit(*made))

    def _handle(self, job_id: str) -> AsyncJobHandle[Any]:
        return AsyncJobHandle(job_id, self._transport, self._storage, self._settings.url_lifetime, self._executor)
