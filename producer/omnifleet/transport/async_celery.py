"""How an asyncio client's jobs are carried: sent as by `Client`, on a few threads; states read in the event loop."""

from __future__ import annotations

from typing import Protocol

from omnifleet_shared.job_state.async_store import AsyncJobStates
from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.results import Progress
from omnifleet_shared.settings import FleetSettings

from .celery import CeleryTransport, Transport
from .executor import Aside

SENDERS = 2
"""Jobs that are sent at once. More would not be faster: it is this process's own time that sending takes."""


class AsyncTransport(Protocol):
    """`Transport` for asyncio: the same methods, which raise the same, but for those of batches, which block."""

    @property
    def blocking(self) -> Transport:
        """What carries batches, on threads of their own."""
        ...

    async def submit(self, job: Job, idempotency_key: str | None = None) -> str:
        """See `Transport`."""
        ...

    async def read(self, job_id: str) -> JobState:
        """See `Transport`."""
        ...

    async def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `Transport`."""
        ...

    async def progress(self, job_id: str) -> Progress:
        """See `Transport`."""
        ...

    async def callback(self, job_id: str) -> CallbackDelivery | None:
        """See `Transport`."""
        ...

    async def cancel(self, job_id: str) -> None:
        """See `Transport`."""

    async def close(self) -> None:
        """See `Transport`."""


class AsyncCeleryTransport:
    """Sends with `CeleryTransport`; all who wait for outcomes share one subscription. The first operation connects.

    Args:
        settings: of the fleet.
        aside: of the client.

    Raises:
        As `CeleryTransport`.
    """

    def __init__(self, settings: FleetSettings, aside: Aside) -> None:
        self._aside = aside
        self._sender = CeleryTransport(settings, SENDERS)
        self._states = AsyncJobStates.connect(settings)

    @property
    def blocking(self) -> Transport:
        """See `AsyncTransport`."""
        return self._sender

    async def submit(self, job: Job, idempotency_key: str | None = None) -> str:
        """See `Transport`."""
        return await self._aside.run(self._sender.submit, job, idempotency_key)

    async def read(self, job_id: str) -> JobState:
        """See `Transport`."""
        self._aside.check_loop()
        return await self._states.read(job_id)

    async def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `Transport`. A connection lost meanwhile is made anew."""
        self._aside.check_loop()
        return await self._states.wait(job_id, timeout)

    async def progress(self, job_id: str) -> Progress:
        """See `Transport`."""
        self._aside.check_loop()
        progress = await self._states.read_progress(job_id)
        if progress == Progress():
            # No progress yet and no such job look the same.
            await self._states.read(job_id)
        return progress

    async def callback(self, job_id: str) -> CallbackDelivery | None:
        """See `Transport`."""
        self._aside.check_loop()
        delivery = await self._states.read_callback(job_id)
        if delivery is None:
            await self._states.read(job_id)
        return delivery

    async def cancel(self, job_id: str) -> None:
        """See `Transport`."""
        self._aside.check_loop()
        if not (await self._states.read(job_id)).status.is_final:
            await self._states.request_cancel(job_id)

    async def close(self) -> None:
        """See `Transport`."""
        await self._states.close()
        await self._aside.run(self._sender.close)
