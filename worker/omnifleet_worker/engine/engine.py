"""The engine: alone on its thread, it alone steps the model; conditioning and decoding go on beside it.

It launches a step while the device still takes the one before, so that the device never waits in between. What is
decided there, who joins, leaves or is cancelled, therefore shows one step later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from omnifleet_shared.errors import DeviceFailed, EngineStopped, OmnifleetError, OutOfMemory

from ..models.model_errors import read_device_error, read_model_error
from .fair_share import FairShare, StepTimer
from .limits import BatchLimit, EngineLimits
from .observer import EngineObserver, NoObserver, Work, note_work
from .request import Kind, Request
from .runner import Done, LaunchedStep, ModelRunner, WeighingRunner
from .scheduler import Scheduler
from .stage_thread import StageThread

logger = logging.getLogger(__name__)
Threads = dict[Kind, StageThread]
IDLE_WAIT = 0.5
"""Seconds that an idle engine waits for a request before it looks whether it should stop."""


class Engine:
    """Advances every active request step by step; requests join and leave between steps.

    Args:
        runner: the tensor side.
        limits: how much is done at once.
        observer: notified of every call of the model; none by default.
        on_device_failed: called once, on any of the engine's threads, before the requests fail with DeviceFailed: the
            device broke, the engine has ended, and only a new process can help.
    """

    def __init__(
        self,
        runner: ModelRunner,
        limits: EngineLimits,
        *,
        observer: EngineObserver | None = None,
        on_device_failed: Callable[[DeviceFailed], None] = lambda error: None,
    ) -> None:
        self.runner = runner
        self.scheduler = Scheduler(limits)
        self._observer = observer or NoObserver()
        self._on_device_failed = on_device_failed
        self._end: EngineStopped | None = None
        self._weigh = runner.weigh if isinstance(runner, WeighingRunner) else _unknown
        self._fair_share, self._timer = FairShare(), StepTimer()
        self.least_seconds = self._timer.least_seconds
        """The least that so many steps of a kind take, as far as it is known by now."""
        self._launched: deque[LaunchedStep] = deque()
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._door, self._waited = threading.Lock(), 0.0
        self._busy_since: float | None = None
        self._steps: dict[Kind, BatchLimit] = {kind: BatchLimit(limits.stepped(kind)) for kind in limits.kinds}
        self._finishes = {kind: BatchLimit(limits.finished(kind)) for kind in limits.kinds}
        self._preparers: Threads = {kind: StageThread(f"prepare-{kind}", self._prepare) for kind in self._steps}
        self._finishers: Threads = {k: StageThread(f"finish-{k}", self._finish, self._finishes[k]) for k in self._steps}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def submit(self, request: Request) -> Request:
        """Hand a request to the engine's thread; its `outcome` future ends with the result or an OmnifleetError.

        Raises:
            EngineStopped: the engine takes no more requests; DeviceFailed where that is because its device broke.
        """
        with self._door:
            if self._end is not None:
                raise type(self._end)(*self._end.args)
            request.most_cost, request.wake = self._weigh(request), partial(self._inbox.put, self._drop_unwanted)
            self._inbox.put(partial(self.scheduler.add, request))
        return request

    @property
    def stalled_seconds(self) -> float:
        """How long the present step, or piece of work beside the steps, has been going on; 0 between them."""
        since = self._busy_since
        stalled = 0.0 if since is None else time.monotonic() - since
        return max(stalled, *(stage.stalled_seconds for stage in self._stages))

    def step(self) -> bool:
        """Admit what waits, launch a step of the kind whose turn it is as one batch, finish what is done.

        Returns whether there is more to do.
        """
        self._await_steps()
        self._receive()
        self._drop_unwanted()
        self._admit()
        kind = self._fair_share.next(self.scheduler.kinds)
        if kind is not None:
            self._advance(kind)
            self._finish_done(kind)
        self._receive()
        return self.scheduler.has_work or bool(self._launched)

    def start(self) -> None:
        """Step on a thread of its own, and work on others beside it, until `stop`."""
        for stage in self._stages:
            stage.start()
        self._thread.start()

    def stop(self) -> None:
        """End the threads; requests without an outcome fail with EngineStopped, which is retried elsewhere."""
        with self._door:  # nothing comes in after this, so nothing is left behind
            self._end = self._end or EngineStopped("the engine is shutting down")
        self._inbox.put(lambda: None)
        if self._thread.is_alive():
            self._thread.join()
        for stage in self._stages:
            stage.stop()
        self._receive()
        self._fail_all(EngineStopped("the engine shut down while the job was in it"), stopped=True)

    @property
    def _stages(self) -> list[StageThread]:
        decoding = [self._finishers[kind] for kind in self._finishers if kind == "diffusion"]
        return [*self._preparers.values(), *decoding]  # what is done of other kinds needs only be given out

    def _run(self) -> None:
        while self._end is None:
            try:
                start = self._busy_since = time.monotonic()
                self._waited = 0.0
                self.step()
                self._observer.hosted(time.monotonic() - start - self._waited)
                self._busy_since = None
                if not self.scheduler.kinds and not self._launched:
                    self._receive(wait=IDLE_WAIT)
            except Exception as error:
                self._failed_between_steps(read_device_error(error))

    def _failed_between_steps(self, error: Exception) -> None:
        if isinstance(error, DeviceFailed):
            self._end_with_device(error)
            return
        logger.error("the engine failed between steps", exc_info=error, extra={"action": "engine_failed"})
        self._fail_all(EngineStopped("the engine failed and was restarted"))

    def _end_with_device(self, error: DeviceFailed) -> None:
        """Take nothing more, and fail every request; none is released, as no call of the device would return."""
        if isinstance(self._end, DeviceFailed):
            return
        with self._door:
            self._end = error
        logger.critical("the engine ends: %s", error, exc_info=error, extra={"action": "device_failed"})
        self._launched.clear()
        self._on_device_failed(error)
        while not self._inbox.empty():
            with suppress(Exception):  # of releases, which the device refuses too
                self._inbox.get_nowait()()
        for request in list(self.scheduler):
            self.scheduler.remove(request)
            request.fail(error)

    def _receive(self, wait: float = 0.0) -> None:
        """Take in what came from other threads: new requests, and what became of those beside the steps."""
        try:
            message = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            while True:
                message()
                message = self._inbox.get_nowait()
        except Empty:
            return

    def _drop_unwanted(self) -> None:
        now = time.time()
        for request in list(self.scheduler):
            least = self._timer.least_seconds(request.kind, request.least_steps_left)
            refusal = None if self.scheduler.is_finishing(request) else request.refusal(now, least)
            if refusal is not None:
                self._fail(request, refusal)

    def _admit(self) -> None:
        beside: dict[Work, Threads] = {"prepare": self._preparers, "finish": self._finishers}
        for request, work in self.scheduler.resume().items():
            if work in beside:
                beside[work][request.kind].put([request])
        for request in self.scheduler.admit():
            self._preparers[request.kind].put([request])
        self._receive()  # where nothing is done beside the steps, they are prepared by now

    def _await_steps(self) -> None:
        """Wait until the device has little enough before it for the next step to be launched."""
        ahead = 1 if len(self.scheduler.kinds) == 1 else 0  # of two kinds, turns go by what their steps took
        while self._launched and (len(self._launched) > ahead or self._launched[0].work.done):
            self._retire(self._launched.popleft())

    def _advance(self, kind: Kind) -> None:
        limit = self._steps[kind]
        for batch in limit.split(self.scheduler.ready(kind)):
            self._each(kind, batch, self._launch, limit, self._failed)
        limit.went_well()

    def _launch(self, batch: Sequence[Request]) -> None:
        start = time.monotonic()
        work = self.runner.advance(batch)
        step = LaunchedStep(batch[0].kind, batch, work or Done(time.monotonic() - start))
        if step.work.done:
            self._retire(step)
        else:
            self._launched.append(step)

    def _retire(self, step: LaunchedStep) -> None:
        """Wait for the step, and note what it took."""
        start = time.monotonic()
        try:
            seconds = step.work.wait()
        except Exception as raised:
            error = read_device_error(raised)
            self._observer.failed(step.kind, len(step.batch), error)
            if isinstance(error, DeviceFailed):
                self._end_with_device(error)
            for request in step.batch:
                if not request.outcome.done():
                    self._fail(request, read_model_error(error))
            return
        finally:
            self._waited += time.monotonic() - start
        self._fair_share.took(step.kind, seconds)
        self._timer.took(step.kind, seconds)
        note_work(self._observer, step.kind, step.batch, seconds, seconds)

    def _finish_done(self, kind: Kind) -> None:
        done = [request for request in self.scheduler.stepping(kind) if self.runner.is_done(request)]
        for request in done:
            self.scheduler.finish(request)
        if done:
            self._finishers[kind].put(done)

    def _prepare(self, batch: list[Request]) -> None:
        """On a thread beside the engine's."""
        if batch[0].outcome.done():  # dropped while it waited for this
            self._inbox.put(partial(self._release, batch[0]))
            return
        self._each("prepare", batch, self._condition, BatchLimit(1), self._failed_beside)

    def _condition(self, batch: Sequence[Request]) -> None:
        for request in batch:
            start = time.monotonic()
            work = self.runner.prepare(request)
            seconds = time.monotonic() - start
            note_work(self._observer, "prepare", [request], seconds, seconds if work is None else work.wait())
            self._inbox.put(partial(self._is_prepared, request))

    def _is_prepared(self, request: Request) -> None:
        if request.outcome.done():
            self._release(request)
        else:
            request.started_at = time.monotonic()
            self.scheduler.prepared(request)

    def _finish(self, batch: list[Request]) -> None:
        """On a thread beside the engine's."""
        limit = self._finishes[batch[0].kind]
        self._each("finish", batch, self._complete, limit, self._failed_beside)
        limit.went_well()

    def _complete(self, batch: Sequence[Request]) -> None:
        start = time.monotonic()
        outcomes = self.runner.finish(batch)
        seconds = time.monotonic() - start
        note_work(self._observer, "finish", batch, seconds, seconds)
        for request, outcome in zip(batch, outcomes, strict=True):
            self._inbox.put(partial(self._leave, request))
            request.succeed(outcome)

    def _each(
        self,
        name: Work,
        batch: list[Request],
        work: Callable[[Sequence[Request]], None],
        limit: BatchLimit,
        failed: Callable[[Request, Exception, Work], None],
    ) -> None:
        """Do the work for the batch; where that fails, for each half, so that only the culprit fails."""
        try:
            work(batch)
        except Exception as raised:
            error = read_device_error(raised)
            self._observer.failed(name, len(batch), error)
            if len(batch) == 1 or isinstance(error, DeviceFailed):
                failed(batch[0], error, name)
                return
            if isinstance(error, OutOfMemory):
                limit.ran_out(len(batch))
            logger.warning(
                "a batch of %d failed, trying its halves: %s", len(batch), error, extra={"action": "batch_split"}
            )
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._each(name, half, work, limit, failed)

    def _failed_beside(self, request: Request, error: Exception, work: Work) -> None:
        self._inbox.put(partial(self._failed, request, error, work))

    def _failed(self, request: Request, error: Exception, work: Work) -> None:
        """Its own fault fails the request; for want of memory it is tried again once others have left."""
        if isinstance(error, DeviceFailed):
            self._end_with_device(error)
            return
        if isinstance(error, OutOfMemory) and not self.scheduler.is_alone(request) and not request.outcome.done():
            logger.warning("a request waits for memory: %s", error, extra={"action": "request_parked"})
            self._park(request, work)
            return
        self._fail(request, read_model_error(error), held=True)

    def _park(self, request: Request, work: Work) -> None:
        restarted = self.scheduler.park(request, work)
        if restarted is not None:
            logger.warning("a request begins anew, for the memory it held", extra={"action": "request_restarted"})
            self.runner.release(restarted)
            restarted.step = 0
            self.scheduler.restart(restarted)

    def _fail(self, request: Request, error: OmnifleetError, *, held: bool = False) -> None:
        """Give the request its error. `held`: by this thread, whatever the scheduler says."""
        beside = self.scheduler.is_beside(request) and not held
        self.scheduler.remove(request)
        if not beside:  # else whoever has it releases it
            self._release(request)
        request.fail(error)

    def _leave(self, request: Request) -> None:
        self.scheduler.remove(request)
        self._release(request)

    def _release(self, request: Request) -> None:
        self.runner.release(request)
        self.scheduler.released(request)

    def _fail_all(self, error: OmnifleetError, *, stopped: bool = False) -> None:
        for request in list(self.scheduler):
            if stopped or not self.scheduler.is_finishing(request):
                self._fail(request, error, held=stopped)


def _unknown(request: Request) -> None:
    """What a request needs, to a runner that cannot tell before."""
