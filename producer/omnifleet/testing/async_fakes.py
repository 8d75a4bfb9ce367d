"""A fleet in memory for asyncio; see `fakes`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.idempotency import IdempotencyKey
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import Progress, Route
from omnifleet_shared.settings import FleetSettings

from ..async_client import AsyncClient
from .fakes import Answer, FakeFleet


class FakeAsyncTransport:
    """A `FakeFleet` for asyncio; see `AsyncJobTransport`."""

    def __init__(self, fleet: FakeFleet) -> None:
        self._fleet = fleet

    @property
    def blocking(self) -> FakeFleet:
        """See `AsyncJobTransport`."""
        return self._fleet

    def of_tenant(self, tenant: str) -> FakeAsyncTransport:
        """See `FakeFleet`."""
        return FakeAsyncTransport(self._fleet.of_tenant(tenant))

    async def submit(self, job: Job, key: IdempotencyKey | None = None, route: Route | None = None) -> str:
        """See `FakeFleet`."""
        return self._fleet.submit(job, key, route)

    async def read(self, job_id: str) -> JobState:
        """See `FakeFleet`."""
        return self._fleet.read(job_id)

    async def wait(self, job_id: str, timeout: float | None) -> JobState:
        """See `JobTransport`. The fleet may be released by any thread."""
        changed = asyncio.Event()
        notify = partial(asyncio.get_running_loop().call_soon_threadsafe, changed.set)
        with self._fleet.listening(job_id, notify), suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._fleet.read(job_id).status.is_final:
                    await changed.wait()
                    changed.clear()
        return self._fleet.read(job_id)

    async def progress(self, job_id: str) -> Progress:
        """See `FakeFleet`."""
        return self._fleet.progress(job_id)

    async def parts(self, job_id: str, after: int) -> Sequence[StreamedPart]:
        """See `FakeFleet`."""
        return self._fleet.parts(job_id, after)

    async def callback(self, job_id: str) -> CallbackDelivery | None:
        """See `FakeFleet`."""
        return self._fleet.callback(job_id)

    async def route(self, job_id: str) -> Route | None:
        """See `FakeFleet`."""
        return self._fleet.route(job_id)

    async def cancel(self, job_id: str) -> None:
        """See `FakeFleet`."""
        self._fleet.cancel(job_id)

    async def close(self) -> None:
        """See `FakeFleet`."""


class FakeAsyncClient(AsyncClient):
    """An `AsyncClient` of a `FakeFleet`.

    Args:
        answer: makes the answer to each job; see `FakeFleet`.
        fleet: one to share with other clients, `FakeClient`s among them; `answer` is then the fleet's own.
        settings: from the environment by default; only the limits matter here.
    """

    def __init__(
        self, answer: Answer | None = None, *, fleet: FakeFleet | None = None, settings: FleetSettings | None = None
    ) -> None:
        self.fleet = fleet or FakeFleet(answer)
        """Holds jobs, shows progress, and can be given another `answer`."""
        super().__init__(settings, transport=FakeAsyncTransport(self.fleet), storage=self.fleet.storage)

    @property
    def jobs(self) -> list[Job]:
        """Every job that was submitted, the first one first."""
        return self.fleet.jobs
