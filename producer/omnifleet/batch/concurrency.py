"""How many jobs of a batch are in the fleet at a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from omnifleet_shared.broker.worker_registry import Capacity
from omnifleet_shared.errors import BrokerUnavailable, InvalidJob

FOR_EACH_PLACE = 2
"""Jobs in the fleet for each job that the workers hold: one runs while the next one waits."""
LEAST = 16
"""Also where no worker is there yet."""
LOOK_AGAIN = 10.0
"""Seconds between looks at the fleet, which grows and shrinks."""


class Window:
    """The limit, and the GPU time that the fleet had meanwhile.

    Args:
        capacity: tells what the fleet's workers hold.
        fixed: a limit that does not follow the fleet.

    Raises:
        InvalidJob: a limit below 1.
    """

    def __init__(self, capacity: Callable[[], Capacity], fixed: int | None = None) -> None:
        if fixed is not None and fixed < 1:
            raise InvalidJob(f"{fixed} jobs at a time are none", "in_flight", "Give 1 or more, or leave it out")
        self._capacity = capacity
        self._fixed = fixed
        self._known = Capacity(workers=0, slots=0)
        self._looked_at: float | None = None
        self._gpu_seconds = 0.0

    @property
    def size(self) -> int:
        """Most jobs that may be in the fleet now."""
        self._look()
        return self._fixed or max(LEAST, FOR_EACH_PLACE * self._known.slots)

    @property
    def gpu_seconds(self) -> float:
        """Sum over the workers of the seconds that they were there since the first look."""
        since = time.monotonic() if self._looked_at is None else self._looked_at
        return self._gpu_seconds + self._known.workers * (time.monotonic() - since)

    @property
    def workers(self) -> int:
        """Worker processes, one a GPU, when last looked."""
        return self._known.workers

    def _look(self) -> None:
        now = time.monotonic()
        if self._looked_at is not None and now < self._looked_at + LOOK_AGAIN:
            return
        self._gpu_seconds = self.gpu_seconds
        self._looked_at = now
        try:
            self._known = self._capacity()
        except BrokerUnavailable:
            return  # as it was: whoever sends and waits finds out too, and says it
