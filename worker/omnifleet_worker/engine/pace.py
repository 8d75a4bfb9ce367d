"""How fast the engine can step, to tell in time what it cannot do in time."""

from __future__ import annotations

from .request import Kind


class Pace:
    """The shortest step of each kind so far: nothing comes to an end sooner than its steps at that pace.

    It is a lower bound on purpose. A request that is refused for it had no chance; one that is not refused may yet be
    late, and is dropped at the first step at which that is certain.
    """

    def __init__(self) -> None:
        self._shortest: dict[Kind, float] = {}

    def took(self, kind: Kind, seconds: float) -> None:
        """A step of that kind took so long."""
        self._shortest[kind] = min(seconds, self._shortest.get(kind, seconds))

    def least_seconds(self, kind: Kind, steps: int) -> float:
        """The least that so many steps take; 0 before the first step of that kind."""
        return steps * self._shortest.get(kind, 0.0)
