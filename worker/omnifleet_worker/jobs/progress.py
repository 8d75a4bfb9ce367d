"""Progress of a job, counted over all its requests to the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from omnifleet_shared.schema.results import Progress

from ..engine.request import Request


class StepCount:
    """Counts the steps of a job's requests. The job's thread writes, any thread may read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expected = 0
        self._past = 0
        self._taken = 0
        """Steps that an earlier attempt took: they tell nothing of the pace."""
        self._most = 0
        self._running: tuple[Request, ...] = ()
        self._started_at: float | None = None

    def expect(self, steps: int) -> None:
        """Raise the number of steps expected in all; it never becomes less."""
        with self._lock:
            self._expected = max(self._expected, steps)

    @contextmanager
    def counting(self, requests: Sequence[Request]) -> Iterator[None]:
        """Count the requests' steps, during the block and from then on."""
        with self._lock:
            self._running = tuple(requests)
            self._taken += sum(one.step if one.outcome.done() else len(one.begun) for one in requests)
            self._expected = max(self._expected, self._past + sum(one.steps for one in requests))
        try:
            yield
        finally:
            with self._lock:
                self._started_at = self._first_start()
                self._past += sum(one.step for one in self._running)
                self._running = ()

    def progress(self) -> Progress:
        """Return steps done and expected, and seconds left at the pace so far; zeros before anything is expected."""
        with self._lock:
            # One that had to give its memory back begins anew.
            step = self._most = max(self._most, self._past + sum(one.step for one in self._running))
            steps, taken, started_at = self._expected, self._taken, self._first_start()
        if step <= taken or started_at is None:
            return Progress(step=step, steps=steps)
        pace = (time.monotonic() - started_at) / (step - taken)
        return Progress(step=step, steps=steps, eta=max(0.0, pace * (steps - step)))

    def _first_start(self) -> float | None:
        if self._started_at is not None:
            return self._started_at
        return min((one.started_at for one in self._running if one.started_at is not None), default=None)
