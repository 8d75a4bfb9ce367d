"""Whose step is next: clips and answers get equal shares of the engine's time, whatever a step of each takes."""

from __future__ import annotations

from collections.abc import Sequence

from .request import Kind


class Turns:
    """Fair sharing by time spent.

    While requests of both kinds are active, the kind that has had less of the engine's time is next. A step of clips
    takes as long as dozens of tokens, so answers write those dozens between two steps of clips: neither kind gets less
    than half of the time, and neither waits for longer than one step of the other. A kind that had nothing to do saves
    nothing up for later. Alone, a kind has all of the time.
    """

    def __init__(self) -> None:
        self._spent: dict[Kind, float] = {}

    def next(self, kinds: Sequence[Kind]) -> Kind | None:
        """The kind to advance, of those with active requests; the first of them where they are even."""
        self._forget_idle(kinds)
        return min(kinds, key=lambda kind: self._spent[kind], default=None)

    def took(self, kind: Kind, seconds: float) -> None:
        """A step of that kind took so long."""
        self._spent[kind] = self._spent.get(kind, 0.0) + seconds

    def _forget_idle(self, kinds: Sequence[Kind]) -> None:
        spent = {kind: self._spent[kind] for kind in kinds if kind in self._spent}
        least = min(spent.values(), default=0.0)
        # Whoever comes back starts level with the others, and the numbers stay small.
        self._spent = {kind: spent.get(kind, least) - least for kind in kinds}
