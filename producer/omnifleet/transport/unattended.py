"""Notices that a job waits while no worker lives: nothing is wrong with the job, and it may wait for ever."""

from __future__ import annotations

import logging
import math
import time
from contextlib import suppress
from dataclasses import dataclass

from omnifleet_shared.errors import BrokerUnavailable, ResultTimeout
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.results import JobStatus, Route

from .async_celery import AsyncJobTransport
from .celery import JobTransport
from .executor import BlockingExecutor

logger = logging.getLogger(__name__)
PATIENCE = 5.0
"""Seconds of waiting before the first look whether a worker lives; six times as many pass between later ones."""
LOOK_FROM = 1.0
"""Shortest timeout, in seconds, after which it is looked too; who polls more often asks for itself."""
NO_WORKER = "no worker{of_model} lives: the job waits until one is started (`omnifleet doctor` looks for more)"


@dataclass(frozen=True)
class Absence:
    """No worker lives that could take a job which waits in its queue."""

    route: Route | None
    """Of the job; None where it is in the fleet's own queue."""

    @property
    def note(self) -> str:
        """What whoever waits is told."""
        of_model = "" if self.route is None else f" of {self.route.model} (queue {self.route.queue})"
        return NO_WORKER.format(of_model=of_model)

    def timeout(self, job_id: str) -> ResultTimeout:
        """Make the error of a wait that ran out meanwhile."""
        of_model = "" if self.route is None else f" of {self.route.model}"
        queue = "OMNIFLEET_QUEUE" if self.route is None else f"OMNIFLEET_QUEUE={self.route.queue}"
        problem = f"job {job_id} is queued, and no worker{of_model} lives to take it"
        remedy = f"Start one with the same OMNIFLEET_REDIS_URL and {queue}; `omnifleet doctor` looks for more"
        return ResultTimeout(problem, "timeout", remedy, {"job_id": job_id, "status": "queued", "workers": 0})


def find_absence(job_id: str, state: JobState, transport: JobTransport) -> Absence | None:
    """Look whether the job waits in its queue and no worker of that lives; None where Redis does not tell."""
    if state.status is not JobStatus.QUEUED:
        return None
    with suppress(BrokerUnavailable):
        route = transport.route(job_id)
        return None if transport.capacity(None if route is None else route.queue).alive else Absence(route)
    return None


def wait_for(transport: JobTransport, job_id: str, timeout: float | None) -> JobState:
    """Wait as `transport.wait` does, and log one warning where the job waits while no worker lives."""
    watch = _Watch(job_id, timeout)
    while (pause := watch.pause()) is not None:
        with suppress(BrokerUnavailable):
            state = transport.wait(job_id, pause)
            if state.status.is_final:
                return state
            watch.note(find_absence(job_id, state, transport))
    return transport.wait(job_id, watch.left())


async def await_for(
    transport: AsyncJobTransport, executor: BlockingExecutor, job_id: str, timeout: float | None
) -> JobState:
    """Wait as `wait_for` does, in the event loop."""
    watch = _Watch(job_id, timeout)
    while (pause := watch.pause()) is not None:
        with suppress(BrokerUnavailable):
            state = await transport.wait(job_id, pause)
            if state.status.is_final:
                return state
            watch.note(await executor.run(find_absence, job_id, state, transport.blocking))
    return await transport.wait(job_id, watch.left())


class _Watch:
    """Says when to look, until a look found no worker: once is enough."""

    def __init__(self, job_id: str, timeout: float | None) -> None:
        self._job_id = job_id
        self._until = math.inf if timeout is None else time.monotonic() + timeout
        self._next_pause = PATIENCE
        self._noted = False

    def pause(self) -> float | None:
        """Give the seconds to wait before the next look; None where there is none any more."""
        pause, self._next_pause = self._next_pause, 6 * PATIENCE
        return None if self._noted or time.monotonic() + pause > self._until else pause

    def left(self) -> float | None:
        return None if math.isinf(self._until) else max(0.0, self._until - time.monotonic())

    def note(self, absence: Absence | None) -> None:
        if absence is not None:
            extra = {"action": "job_unattended", "job_id": self._job_id}
            logger.warning("job %s: %s", self._job_id, absence.note, extra=extra)
            self._noted = True
