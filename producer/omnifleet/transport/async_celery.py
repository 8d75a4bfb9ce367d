"""Jobs of an asyncio client: sent as by `Client`, on a few threads; states are read in the event loop."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Protocol, Self

from omnifleet_shared.job_state.async_store import AsyncJobStates
from omnifleet_shared.per_process import PerProcess
from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.idempotency import IdempotencyKey
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import Progress, Route
from omnifleet_shared.settings import FleetSettings

from .celery import CeleryTransport, JobTransport
from .executor import BlockingExecutor

SENDERS = 2
"""Jobs that are sent at once. More would not be faster: it is this process's own time that sending takes."""


class AsyncJobTransport(Protocol):
    """Carries the jobs of an `AsyncClient`: `JobTransport` awaited, save the methods of batches, which block."""

    @property
    def blocking(self) -> JobTransport:
        """The transport of batches, which block threads of their own."""
        ...

    def of_tenant(self, tenant: str) -> Self:
        """See `JobTransport`."""
        ...

    async def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """See `JobTransport`."""
        ...

    async def read(self, job_id: str) -> JobState:
        """See `JobTransport`."""
        ...

    async def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `JobTransport`."""
        ...

    async def progress(self, job_id: str) -> Progress:
        """See `JobTransport`."""
        ...

    async def parts(self, job_id: str, after: int) -> Sequence[StreamedPart]:
        """See `JobTransport`."""
        ...

    async def callback(self, job_id: str) -> CallbackDelivery | None:
        """See `JobTransport`."""
        ...

    async def route(self, job_id: str) -> Route | None:
        """See `JobTransport`."""
        ...

    async def cancel(self, job_id: str) -> None:
        """See `JobTransport`."""

    async def close(self) -> None:
        """See `JobTransport`."""


class AsyncCeleryTransport:
    """Sends with `CeleryTransport`; all waiters share one subscription. The first operation connects.

    Args:
        settings: of the fleet.
        executor: runs what blocks; the client's.

    Raises:
        As `CeleryTransport`.
    """

    def __init__(self, settings: FleetSettings, executor: BlockingExecutor) -> None:
        self._executor = executor
        self._sender = CeleryTransport(settings, SENDERS)
        self._states = PerProcess(lambda: AsyncJobStates.connect(settings))
        self._states.get()  # a URL that is none is refused now

    @property
    def blocking(self) -> JobTransport:
        """See `AsyncJobTransport`."""
        return self._sender

    def of_tenant(self, tenant: str) -> Self:
        """See `JobTransport`."""
        other = copy.copy(self)
        other._sender = self._sender.of_tenant(tenant)
        return other

    async def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """See `JobTransport`."""
        return await self._executor.run(self._sender.submit, job, key, route)

    async def read(self, job_id: str) -> JobState:
        """See `JobTransport`."""
        self._executor.check_loop()
        return await self._states.get().read(job_id)

    async def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `JobTransport`. A connection lost meanwhile is made anew."""
        self._executor.check_loop()
        return await self._states.get().wait(job_id, timeout)

    async def progress(self, job_id: str) -> Progress:
        """See `JobTransport`."""
        self._executor.check_loop()
        progress = await self._states.get().read_progress(job_id)
        if progress == Progress():
            # No progress yet and no such job look the same.
            await self._states.get().read(job_id)
        return progress

    async def parts(self, job_id: str, after: int) -> Sequence[StreamedPart]:
        """See `JobTransport`."""
        self._executor.check_loop()
        return await self._states.get().read_parts(job_id, after)

    async def callback(self, job_id: str) -> CallbackDelivery | None:
        """See `JobTransport`."""
        self._executor.check_loop()
        delivery = await self._states.get().read_callback(job_id)
        if delivery is None:
            await self._states.get().read(job_id)
        return delivery

    async def route(self, job_id: str) -> Route | None:
        """See `JobTransport`."""
        self._executor.check_loop()
        route = await self._states.get().read_route(job_id)
        if route is None:
            await self._states.get().read(job_id)
        return route

    async def cancel(self, job_id: str) -> None:
        """See `JobTransport`."""
        self._executor.check_loop()
        if not (await self._states.get().read(job_id)).status.is_final:
            await self._states.get().request_cancel(job_id)

    async def close(self) -> None:
        """See `JobTransport`."""
        await self._states.get().close()
        await self._executor.run(self._sender.close)
