"""The goal of a run: how much has to happen before it may end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from .faults import Kind


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A run sends jobs and makes faults until all of this was reached, and every kind of fault happened."""

    seconds: float
    jobs: int
    """Jobs that were accepted."""
    kills: int
    kinds: Collection[Kind]
    """Faults that are wanted."""

    def is_reached(self, seconds: float, jobs: int, faults: Mapping[Kind, int]) -> bool:
        """Tell whether so many seconds, jobs and faults are enough."""
        happened = all(faults.get(kind, 0) for kind in self.kinds)
        killed = Kind.KILL not in self.kinds or faults.get(Kind.KILL, 0) >= self.kills
        return happened and killed and seconds >= self.seconds and jobs >= self.jobs
