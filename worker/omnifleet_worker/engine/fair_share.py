"""Whose step is next, and how fast steps are."""

from __future__ import annotations

from collections.abc import Sequence

from .request import Kind


class FairShare:
    """Shares the device by time spent: clips and answers get equal parts of it, whatever a step of each takes.

    While requests of both kinds are active, the kind that has had less of the device's time is next. A step of clips
    takes as long as dozens of tokens, so answers write those dozens between two steps of clips: neither kind gets less
    than half of the time, and neither waits for longer than one step of the other. A kind that had nothing to do saves
    nothing up for later. Alone, a kind has all of the time.

    They take turns because both at once gain next to nothing: 8 clips and 16 answers on two streams of an H100 took
    0.976 of the time that they take one after the other.
    """

    def __init__(self) -> None:
        self._spent: dict[Kind, float] = {}

    def next(self, kinds: Sequence[Kind]) -> Kind | None:
        """Choose the kind to advance, of those with active requests; the first of them where they are even."""
        self._forget_idle(kinds)
        return min(kinds, key=lambda kind: self._spent[kind], default=None)

    def took(self, kind: Kind, seconds: float) -> None:
        """Note how long a step of a kind took."""
        self._spent[kind] = self._spent.get(kind, 0.0) + seconds

    def _forget_idle(self, kinds: Sequence[Kind]) -> None:
        spent = {kind: self._spent[kind] for kind in kinds if kind in self._spent}
        least = min(spent.values(), default=0.0)
        # Whoever comes back starts level with the others, and the numbers stay small.
        self._spent = {kind: spent.get(kind, least) - least for kind in kinds}


class StepTimer:
    """Keeps the shortest step of each kind so far: nothing comes to an end sooner than its steps at that pace.

    It is a lower bound on purpose. A request that is refused for it had no chance; one that is not refused may yet be
    late, and is dropped at the first step at which that is certain.
    """

    def __init__(self) -> None:
        self._shortest: dict[Kind, float] = {}

    def took(self, kind: Kind, seconds: float) -> None:
        """Note how long a step of a kind took."""
        self._shortest[kind] = min(seconds, self._shortest.get(kind, seconds))

    def least_seconds(self, kind: Kind, steps: int) -> float:
        """Tell the least that so many steps take; 0 before the first step of that kind."""
        return steps * self._shortest.get(kind, 0.0)
