"""The places of one worker process for the jobs that it holds, kind by kind: neither kind waits for the other's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from omnifleet_shared.broker.kinds import KINDS, JobKind

from .engine.limits import EngineLimits


@dataclass(frozen=True)
class _Place:
    kind: JobKind
    batch: bool


@dataclass
class JobPlaces:
    """Who has which place. One of each kind, where there are several, is not for batch jobs."""

    most: Mapping[JobKind, int]
    """Places of each kind; none of a kind that is missing."""
    _taken: dict[str, _Place] = field(default_factory=dict[str, _Place])
    _counts: Counter[_Place] = field(default_factory=Counter[_Place])

    @property
    def total(self) -> int:
        """Jobs that may be held at once."""
        return sum(self.most.values())

    @property
    def all_taken(self) -> bool:
        """Whether no place is free, of those whose jobs were dropped on the way neither."""
        return all(self._count(self._counts, kind) >= most for kind, most in self.most.items())

    def take(self, tag: str, kind: JobKind, *, batch: bool) -> None:
        """Give a message its place."""
        self.leave(tag)
        self._taken[tag] = place = _Place(kind, batch)
        self._counts[place] += 1

    def leave(self, tag: str) -> JobKind | None:
        """Free a message's place, and give its kind; None where it has none."""
        if (place := self._taken.pop(tag, None)) is None:
            return None
        self._counts[place] -= 1
        return place.kind

    def free(self, kind: JobKind, *, batch: bool) -> int:
        """Places that are free, counting what is taken."""
        return self._free(self._counts, kind, batch=batch)

    def free_beside(self, tags: Iterable[str], kind: JobKind, *, batch: bool) -> int:
        """Places that are free where these messages alone have theirs."""
        return self._free(Counter(self._taken[tag] for tag in tags if tag in self._taken), kind, batch=batch)

    def _free(self, counts: Counter[_Place], kind: JobKind, *, batch: bool) -> int:
        most = self.most.get(kind, 0)
        free = most - self._count(counts, kind)
        return max(0, min(free, max(1, most - 1) - counts[_Place(kind, True)]) if batch else free)

    @staticmethod
    def _count(counts: Counter[_Place], kind: JobKind) -> int:
        return counts[_Place(kind, True)] + counts[_Place(kind, False)]


def of_each_kind(jobs: int) -> dict[JobKind, int]:
    """So many places of each kind."""
    return dict.fromkeys(KINDS, jobs)


def worth_holding(limits: EngineLimits, most: int) -> dict[JobKind, int]:
    """Places by what the engine does at once, at least one and at most `most` of each kind.

    Twice as many clips, and answers, as share a step: the others are fetched, decoded, encoded or stored meanwhile.
    What is said takes its steps alone, so that one more is enough. What waits here for longer is what an idle worker
    cannot have.
    """
    sounds = 2 * limits.clips if limits.clips else limits.speeches + 1
    wanted: dict[JobKind, int] = {"sounds": sounds, "answers": 2 * limits.chats}
    return {kind: max(1, min(wanted[kind], most)) for kind in KINDS}
