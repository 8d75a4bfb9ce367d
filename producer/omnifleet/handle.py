"""Handles of submitted jobs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Generic, cast

from omnifleet_shared.errors import BrokerUnavailable, ResultTimeout
from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.results import JobStatus, Progress, Route
from omnifleet_shared.storage import Storage
from typing_extensions import TypeVar

from .results.parts import Part, PartReader
from .results.results import JobResult, open_result
from .transport.celery import JobTransport
from .transport.unattended import LOOK_FROM, Absence, find_absence, wait_for

PARTS_INTERVAL = 0.1
"""Seconds between reads of the parts of a job that is streamed."""
R = TypeVar("R", bound=JobResult, default=JobResult, covariant=True)


class JobHandle(Generic[R]):
    """A handle of a submitted job. Made by a `Client`; every method may raise UnknownJob and BrokerUnavailable.

    Several handles may be of one job: a request with the `idempotency_key` of a job that waits, runs or has succeeded
    is answered with that job's handle, and `cancel` then stops it for all of them.
    """

    def __init__(self, job_id: str, transport: JobTransport, storage: Storage, url_lifetime: int) -> None:
        self._id = job_id
        self._transport = transport
        self._storage = storage
        self._url_lifetime = url_lifetime

    @property
    def id(self) -> str:
        """The job's id; `job(id)` of a client finds the job again from another process."""
        return self._id

    def result(self, timeout: float | None = None) -> R:
        """Wait for the result. Where the job waits for some seconds while no worker lives, a warning is logged.

        Args:
            timeout: seconds to wait; as long as it takes by default.

        Raises:
            ResultTimeout: not there in time; the job goes on.
            OmnifleetError: the job failed, with the error's own class.
        """
        state = wait_for(self._transport, self._id, timeout)
        if timeout is not None and timeout >= LOOK_FROM and (absence := self._find_absence(state)) is not None:
            raise absence.timeout(self._id)
        return cast(R, result_of(self._id, state, self._storage, self._url_lifetime))

    def stream(self, after: int = 0, timeout: float | None = None) -> Iterator[Part]:
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
        until = None if timeout is None else time.monotonic() + timeout
        self._transport.read(self._id)  # that there is no such job, or no Redis at all, is told at once
        state, wait = JobState(status=JobStatus.QUEUED), 0.0
        while not state.status.is_final and (until is None or time.monotonic() < until):
            with suppress(BrokerUnavailable):
                # The state before the parts: those that come in between would be missed.
                newest = self._transport.wait(self._id, wait)
                parts = self._transport.parts(self._id, reader.after)
                state, wait = newest, PARTS_INTERVAL
                yield from reader.open(parts)
        yield from reader.whole(result_of(self._id, state, self._storage, self._url_lifetime))

    def progress(self) -> Progress:
        """Read the steps done and in all, and the seconds left; all zeros before the first step."""
        return self._transport.progress(self._id)

    def status(self) -> JobStatus:
        """Read the job's status, such as queued or running."""
        return self._transport.read(self._id).status

    def is_unattended(self) -> bool:
        """Read whether the job waits in its queue and no worker lives to take it."""
        return self._find_absence(self._transport.read(self._id)) is not None

    def route(self) -> Route | None:
        """Read which model was chosen for the job, and why; None where there was no choice (`OMNIFLEET_MODELS`)."""
        return self._transport.route(self._id)

    def callback(self) -> CallbackDelivery | None:
        """Read how far the delivery of the job's callback is; None before its outcome, or where it has none."""
        return self._transport.callback(self._id)

    def cancel(self) -> None:
        """Ask for the job to be stopped: before it starts, or at its next step. `result` then raises JobCancelled.

        Without effect on a job that is done.
        """
        self._transport.cancel(self._id)

    def save(self, path: str | os.PathLike[str], timeout: float | None = None) -> Path:
        """Wait for the result and write its audio, or its text, to a file. Raises as `result` and `Audio.save`."""
        return self.result(timeout).save(path)

    def _find_absence(self, state: JobState) -> Absence | None:
        return find_absence(self._id, state, self._transport)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._id}>"


def result_of(job_id: str, state: JobState, storage: Storage, url_lifetime: int) -> JobResult:
    """Return the result in a state; raises the job's own error, and ResultTimeout where there is no outcome yet."""
    if not state.status.is_final:
        problem = f"job {job_id} is {state.status.value} and its result is not there yet"
        details = {"job_id": job_id, "status": state.status.value}
        raise ResultTimeout(problem, "timeout", "The job goes on: ask for its result again", details)
    if state.error is not None:
        raise state.error
    assert state.result is not None, "a final state has a result or an error"
    return open_result(state.result, storage, url_lifetime)
