"""How many jobs of a batch are in the fleet at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from omnifleet_shared.broker.worker_registry import Capacity
from omnifleet_shared.errors import BrokerUnavailable, InvalidJob

JOBS_PER_SLOT = 2
"""Jobs in the fleet for each slot of its workers: one runs while the next one waits."""
MIN_IN_FLIGHT = 16
"""Jobs in the fleet at least, also where no worker is there yet."""
REFRESH_INTERVAL = 10.0
"""Seconds between reads of the fleet's capacity, which grows and shrinks."""


class InFlightLimit:
    """Limits the jobs of a batch in the fleet, and counts the GPU time that the fleet had meanwhile.

    Args:
        capacity: reads what the fleet's workers hold at once.
        fixed: a limit that does not follow the fleet.

    Raises:
        InvalidJob: a limit below 1.
    """

    def __init__(self, capacity: Callable[[], Capacity], fixed: int | None = None) -> None:
        if fixed is not None and fixed < 1:
            raise InvalidJob(f"{fixed} jobs at a time are none", "in_flight", "Give 1 or more, or leave it out")
        self._read_capacity = capacity
        self._fixed = fixed
        self._capacity = Capacity(workers=0, slots=0)
        self._read_at: float | None = None
        self._has_read = False
        self._gpu_seconds = 0.0

    @property
    def size(self) -> int:
        """Most jobs that may be in the fleet now."""
        self._refresh()
        return self._fixed or max(MIN_IN_FLIGHT, JOBS_PER_SLOT * self._capacity.slots)

    @property
    def gpu_seconds(self) -> float:
        """Sum over the workers of the seconds that they were there since the first read."""
        since = time.monotonic() if self._read_at is None else self._read_at
        return self._gpu_seconds + self._capacity.workers * (time.monotonic() - since)

    @property
    def workers(self) -> int:
        """Worker processes, one a GPU, at the last read."""
        return self._capacity.workers

    @property
    def lacks_workers(self) -> bool:
        """Whether no worker lived at the last read, which is a few seconds old."""
        self._refresh()
        return self._has_read and not self._capacity.alive

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._read_at is not None and now < self._read_at + REFRESH_INTERVAL:
            return
        self._gpu_seconds = self.gpu_seconds
        self._read_at = now
        try:
            self._capacity = self._read_capacity()
            self._has_read = True
        except BrokerUnavailable:
            return  # the last capacity stands: whoever sends and waits meets the same error, and reports it
