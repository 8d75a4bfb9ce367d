"""Handles of submitted jobs, for asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, cast

from omnifleet_shared.errors import BrokerUnavailable
from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.results import JobStatus, Progress, Route
from omnifleet_shared.storage import Storage

from .handle import PARTS_INTERVAL, R, result_of
from .results.parts import Part, PartReader
from .transport.async_celery import AsyncJobTransport
from .transport.executor import BlockingExecutor
from .transport.unattended import LOOK_FROM, Absence, await_for, find_absence

POLL_INTERVAL = 0.25
"""Seconds between reads of a job's progress; workers publish it as often."""


class AsyncJobHandle(Generic[R]):
    """A handle of a submitted job. Made by an `AsyncClient`; every method may raise UnknownJob and BrokerUnavailable.

    As with `JobHandle`, several handles may be of one job. Results are those of `Client`: their `read` and `save`
    block, so let `save` of this handle do it, or give them to `asyncio.to_thread`.
    """

    def __init__(
        self, job_id: str, transport: AsyncJobTransport, storage: Storage, url_lifetime: int, executor: BlockingExecutor
    ) -> None:
        self._id = job_id
        self._transport = transport
        self._storage = storage
        self._url_lifetime = url_lifetime
        self._executor = executor

    @property
    def id(self) -> str:
        """The job's id; `job(id)` of a client finds the job again from another process."""
        return self._id

    async def result(self, timeout: float | None = None, *, cancel_job: bool = False) -> R:
        """Wait for the result. Where the job waits for some seconds while no worker lives, a warning is logged.

        Args:
            timeout: seconds to wait; as long as it takes by default.
            cancel_job: where the task that waits is cancelled, ask for the job to be stopped. It goes on by default.

        Raises:
            ResultTimeout: not there in time; the job goes on.
            OmnifleetError: the job failed, with the error's own class.
        """
        try:
            state = await await_for(self._transport, self._executor, self._id, timeout)
            looks = timeout is not None and timeout >= LOOK_FROM
            if looks and (absence := await self._find_absence(state)) is not None:
                raise absence.timeout(self._id)
        except asyncio.CancelledError:
            if cancel_job:
                await self._executor.run_to_completion(self.cancel())
            raise
        return cast(R, result_of(self._id, state, self._storage, self._url_lifetime))

    async def stream(self, after: int = 0, timeout: float | None = None) -> AsyncGenerator[Part]:
        """Iterate over the result's parts as they are done: windows of sound, parts of speech, pieces of a text.

        They are those of a job that was sent with `stream=True`; any other has one part, its result. They are kept as
        long as the result, so that nobody misses one: a reader that broke off goes on behind the last part it had. A
        connection that is lost meanwhile is made anew.

        Args:
            after: number of the last part that was read before; all by default.
            timeout: seconds to wait for the last part; as long as it takes by default.

        Raises:
            ResultTimeout: not there in time; the job goes on.
            OmnifleetError: the job failed, with the error's own class, behind the parts that it had given out.
        """
        reader = PartReader(after, self._storage, self._url_lifetime)
        outcome = asyncio.ensure_future(self._transport.wait(self._id, timeout))
        try:
            is_read = False
            while not is_read:
                # Before the parts are read: those that come in between would be missed.
                ended = outcome.done()
                with suppress(BrokerUnavailable):
                    parts = await self._transport.parts(self._id, reader.after)
                    is_read = ended
                    for part in reader.open(parts):
                        yield part
                if not is_read:
                    await (asyncio.sleep(PARTS_INTERVAL) if ended else asyncio.wait({outcome}, timeout=PARTS_INTERVAL))
            state = outcome.result()
        finally:
            outcome.cancel()
            await asyncio.gather(outcome, return_exceptions=True)
        for part in reader.whole(result_of(self._id, state, self._storage, self._url_lifetime)):
            yield part

    def progress(self) -> ProgressUpdates:
        """Read the steps done and in all, and the seconds left; all zeros before the first step.

        `await job.progress()` reads once. `async for progress in job.progress()` gives each change until the job has an
        outcome, whatever it is; a connection that is lost meanwhile is made anew.
        """
        return ProgressUpdates(self._id, self._transport)

    async def status(self) -> JobStatus:
        """Read the job's status, such as queued or running."""
        return (await self._transport.read(self._id)).status

    async def is_unattended(self) -> bool:
        """Read whether the job waits in its queue and no worker lives to take it."""
        return await self._find_absence(await self._transport.read(self._id)) is not None

    async def route(self) -> Route | None:
        """Read which model was chosen for the job, and why; None where there was no choice (`OMNIFLEET_MODELS`)."""
        return await self._transport.route(self._id)

    async def callback(self) -> CallbackDelivery | None:
        """Read how far the delivery of the job's callback is; None before its outcome, or where it has none."""
        return await self._transport.callback(self._id)

    async def cancel(self) -> None:
        """Ask for the job to be stopped: before it starts, or at its next step. `result` then raises JobCancelled.

        Without effect on a job that is done.
        """
        await self._transport.cancel(self._id)

    async def save(
        self, path: str | os.PathLike[str], timeout: float | None = None, *, cancel_job: bool = False
    ) -> Path:
        """Wait for the result and write its audio, or its text, to a file. Raises as `result` and `Audio.save`."""
        result = await self.result(timeout, cancel_job=cancel_job)
        return await self._executor.run(result.save, path)

    async def _find_absence(self, state: JobState) -> Absence | None:
        return await self._executor.run(find_absence, self._id, state, self._transport.blocking)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id}>"


class ProgressUpdates:
    """Progress of a job: now, when awaited; every change, in `async for`. See `AsyncJobHandle.progress`."""

    def __init__(self, job_id: str, transport: AsyncJobTransport) -> None:
        self._id = job_id
        self._transport = transport

    def __await__(self) -> Generator[Any, None, Progress]:
        return self._transport.progress(self._id).__await__()

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self._changes()

    async def _changes(self) -> AsyncGenerator[Progress]:
        outcome = asyncio.ensure_future(self._transport.wait(self._id, None))
        last: Progress | None = None
        try:
            ended = False
            while not ended:
                await asyncio.wait({outcome}, timeout=0 if last is None else POLL_INTERVAL)
                # Before the last read, not after it: what comes in between would be missed.
                ended = outcome.done()
                with suppress(BrokerUnavailable):
                    progress = await self._transport.progress(self._id)
                    if progress != last:
                        last = progress
                        yield progress
            outcome.result()
        finally:
            outcome.cancel()
            await asyncio.gather(outcome, return_exceptions=True)
