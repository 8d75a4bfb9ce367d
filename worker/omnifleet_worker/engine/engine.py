"""The engine: alone on its thread, it alone touches the model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from omnifleet_shared.errors import EngineStopped, JobFailed, OmnifleetError

from .observer import EngineObserver, NoObserver, Work
from .request import Request
from .scheduler import Scheduler

logger = logging.getLogger(__name__)
IDLE_WAIT = 0.5
"""Seconds that an idle engine waits for a request before it looks whether it should stop."""


class ModelRunner(Protocol):
    """The tensor side. Its methods raise OmnifleetError for what is the request's or the device's fault."""

    def prepare(self, request: Request) -> None:
        """Everything before the first step: conditioning and noise, or the prefill of an answer."""
        ...

    def advance(self, batch: Sequence[Request]) -> None:
        """One step of requests of one kind. Where it raises, it is called again for parts of the batch."""
        ...

    def is_done(self, request: Request) -> bool:
        """Whether the last step was taken."""
        ...

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """The outcomes of requests of one kind that are done, in order."""
        ...

    def release(self, request: Request) -> None:
        """Forget the request's tensors. Called once for every request, prepared or not."""
        ...


class Engine:
    """Advances every active request by one step at a time; requests join and leave between steps.

    Args:
        runner: the tensor side.
        max_active: requests that may share a step.
        observer: told of every call of the model; nobody by default.
    """

    def __init__(self, runner: ModelRunner, *, max_active: int, observer: EngineObserver | None = None) -> None:
        self.runner = runner
        self._observer = observer or NoObserver()
        self.scheduler = Scheduler(max_active)
        self._inbox: SimpleQueue[Request | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._door = threading.Lock()
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def submit(self, request: Request) -> Request:
        """Hand a request to the engine's thread; its `outcome` future ends with the result or an OmnifleetError."""
        with self._door:
            if self._stopping.is_set():
                raise EngineStopped("the engine is shutting down")
            self._inbox.put(request)
        return request

    @property
    def stalled_seconds(self) -> float:
        """How long the present step has been going on; 0 between steps."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def step(self) -> bool:
        """Admit what waits, advance every active request by one step as one batch, finish those that are done.

        Returns whether there is more to do.
        """
        self._receive()
        self._drop_unwanted()
        for request in self.scheduler.admit():
            self._each("prepare", [request], self._prepare)
        for batch in self._batches(self.scheduler.active):
            self._each(batch[0].kind, batch, self.runner.advance)
        for batch in self._batches([one for one in self.scheduler.active if self.runner.is_done(one)]):
            self._each("finish", batch, self._finish)
        return self.scheduler.has_work

    def start(self) -> None:
        """Step on a thread of its own until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; requests without an outcome fail with EngineStopped, which is retried elsewhere."""
        with self._door:  # nothing comes in after this, so nothing is left behind
            self._stopping.set()
        self._inbox.put(None)
        if self._thread.is_alive():
            self._thread.join()
        self._receive()
        self._fail_all(EngineStopped("the engine shut down while the job was in it"))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._busy_since = time.monotonic()
                more = self.step()
                self._busy_since = None
                if not more:
                    self._receive(wait=IDLE_WAIT)
            except Exception:
                logger.exception("the engine failed between steps", extra={"action": "engine_failed"})
                self._fail_all(EngineStopped("the engine failed and was restarted"))

    def _receive(self, wait: float = 0.0) -> None:
        try:
            request = self._inbox.get(timeout=wait) if wait else self._inbox.get_nowait()
            while True:
                if request is not None:
                    self.scheduler.add(request)
                request = self._inbox.get_nowait()
        except Empty:
            return

    def _drop_unwanted(self) -> None:
        now = time.time()
        for request in list(self.scheduler):
            if (refusal := request.refusal(now)) is not None:
                self._fail(request, refusal)

    @staticmethod
    def _batches(requests: Sequence[Request]) -> list[list[Request]]:
        kinds = {request.kind: [one for one in requests if one.kind == request.kind] for request in requests}
        return list(kinds.values())

    def _each(self, name: Work, batch: list[Request], work: Callable[[Sequence[Request]], None]) -> None:
        """Do the work for the batch; where that fails, for each half, so that only the culprit fails."""
        start = time.monotonic()
        try:
            work(batch)
        except Exception as error:
            self._observer.failed(name, len(batch), error)
            if len(batch) == 1:
                self._fail(batch[0], _typed(error))
                return
            logger.warning(
                "a batch of %d failed, trying its halves: %s", len(batch), error, extra={"action": "batch_split"}
            )
            self._each(name, batch[: len(batch) // 2], work)
            self._each(name, batch[len(batch) // 2 :], work)
        else:
            self._observer.worked(name, len(batch), time.monotonic() - start)

    def _prepare(self, batch: Sequence[Request]) -> None:
        for request in batch:
            self.runner.prepare(request)
            request.started_at = time.monotonic()

    def _finish(self, batch: Sequence[Request]) -> None:
        for request, outcome in zip(batch, self.runner.finish(batch), strict=True):
            self._leave(request)
            request.outcome.set_result(outcome)

    def _fail(self, request: Request, error: OmnifleetError) -> None:
        self._leave(request)
        request.outcome.set_exception(error)

    def _leave(self, request: Request) -> None:
        self.scheduler.remove(request)
        self.runner.release(request)

    def _fail_all(self, error: OmnifleetError) -> None:
        for request in list(self.scheduler):
            self._fail(request, error)


def _typed(error: Exception) -> OmnifleetError:
    if isinstance(error, OmnifleetError):
        return error
    logger.error("a request failed in the model", exc_info=error, extra={"action": "request_failed"})
    name = type(error).__name__
    return JobFailed(f"the model failed with {name}: {error}", details={"type": name})
