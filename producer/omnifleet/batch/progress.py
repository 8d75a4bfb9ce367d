"""How a batch gets on: counts, rate, time left, and what its GPUs make of an hour."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from .concurrency import Window
from .journal.journal import Tally

LATELY = 60.0
"""Seconds that the rate is taken over."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a batch stands at a moment."""

    jobs: int
    """In the list."""
    succeeded: int
    failed: int
    cancelled: int
    in_flight: int
    reasons: dict[str, int]
    """Failed and cancelled ones by the class of their error."""
    per_second: float
    """Jobs that ended, of late."""
    seconds_left: float | None
    """At that rate; None while there is none."""
    clips_per_gpu_hour: float | None
    """Jobs of this run for each hour of each worker that was there; None while nothing is known."""
    waits_for: str | None
    """What the batch waits for other than its jobs, such as Redis."""

    @property
    def ended(self) -> int:
        """Jobs that have nothing left to do."""
        return self.succeeded + self.failed + self.cancelled

    def record(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


class Pace:
    """Takes the time of one run.

    Args:
        jobs: in the list.
        tally: as the journal has them; counted on by `add`.
        window: that knows the fleet's capacity.
    """

    def __init__(self, jobs: int, tally: Tally, window: Window) -> None:
        self._jobs = jobs
        self._tally = tally
        self._window = window
        self._before = tally.ended
        self._lately: deque[tuple[float, int]] = deque([(time.monotonic(), tally.ended)])
        self.in_flight = 0
        self.waits_for: str | None = None

    def add(self, status: str, reason: str | None) -> None:
        """Count a job that ended."""
        self._tally.add(status, reason)

    def standing(self) -> Standing:
        """How the batch stands now."""
        tally, rate = self._tally, self._rate()
        gpu_hours = self._window.gpu_seconds / 3600
        return Standing(
            jobs=self._jobs,
            succeeded=tally.succeeded,
            failed=tally.failed,
            cancelled=tally.cancelled,
            in_flight=self.in_flight,
            reasons=dict(tally.reasons),
            per_second=round(rate, 3),
            seconds_left=round((self._jobs - tally.ended) / rate, 1) if rate else None,
            clips_per_gpu_hour=round((tally.ended - self._before) / gpu_hours, 1) if gpu_hours else None,
            waits_for=self.waits_for,
        )

    def _rate(self) -> float:
        now = time.monotonic()
        if now - self._lately[-1][0] >= 1:
            self._lately.append((now, self._tally.ended))
        while len(self._lately) > 2 and self._lately[1][0] < now - LATELY:
            self._lately.popleft()
        since, ended = self._lately[0]
        return (self._tally.ended - ended) / (now - since) if now > since else 0.0
