"""How far a batch is: counts, rate, time left, and what its GPUs make of an hour."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from .concurrency import InFlightLimit
from .journal.journal import Counts

NO_WORKER = "no worker lives: jobs wait until one is started (`omnifleet doctor` looks for more)"
RATE_WINDOW = 60.0
"""Seconds that the rate is taken over."""


@dataclass(frozen=True, kw_only=True)
class BatchStatus:
    """How far a batch is at a moment."""

    jobs: int
    """Jobs in the list."""
    succeeded: int
    failed: int
    cancelled: int
    in_flight: int
    reasons: dict[str, int]
    """Failed and cancelled jobs by the class of their error."""
    per_second: float
    """Jobs that ended a second, over the last minute."""
    seconds_left: float | None
    """At that rate; None while there is none."""
    clips_per_gpu_hour: float | None
    """Jobs of this run for each hour of each worker that was there; None while nothing is known."""
    waits_for: str | None
    """What the batch waits for other than its jobs, such as Redis or a worker."""

    @property
    def ended(self) -> int:
        """Jobs that have nothing left to do."""
        return self.succeeded + self.failed + self.cancelled

    def record(self) -> dict[str, Any]:
        """Return the same as JSON values."""
        return asdict(self)


class RateMeter:
    """Counts the jobs of one run as they end, and measures how fast they do.

    Args:
        jobs: in the list.
        counts: as the journal has them; counted on by `add`.
        limit: knows the fleet's GPU time.
    """

    def __init__(self, jobs: int, counts: Counts, limit: InFlightLimit) -> None:
        self._jobs = jobs
        self._counts = counts
        self._limit = limit
        self._ended_before = counts.ended
        self._samples: deque[tuple[float, int]] = deque([(time.monotonic(), counts.ended)])
        """Monotonic times, and the jobs that had ended by then."""
        self.in_flight = 0
        self.waits_for: str | None = None

    def add(self, status: str, reason: str | None) -> None:
        """Count a job that ended."""
        self._counts.add(status, reason)

    def status(self) -> BatchStatus:
        """Return how far the batch is now."""
        counts, rate = self._counts, self._rate()
        gpu_hours = self._limit.gpu_seconds / 3600
        return BatchStatus(
            jobs=self._jobs,
            succeeded=counts.succeeded,
            failed=counts.failed,
            cancelled=counts.cancelled,
            in_flight=self.in_flight,
            reasons=dict(counts.reasons),
            per_second=round(rate, 3),
            seconds_left=round((self._jobs - counts.ended) / rate, 1) if rate else None,
            clips_per_gpu_hour=round((counts.ended - self._ended_before) / gpu_hours, 1) if gpu_hours else None,
            waits_for=self.waits_for or (NO_WORKER if self.in_flight and self._limit.lacks_workers else None),
        )

    def _rate(self) -> float:
        now = time.monotonic()
        if now - self._samples[-1][0] >= 1:
            self._samples.append((now, self._counts.ended))
        while len(self._samples) > 2 and self._samples[1][0] < now - RATE_WINDOW:
            self._samples.popleft()
        since, ended = self._samples[0]
        return (self._counts.ended - ended) / (now - since) if now > since else 0.0
