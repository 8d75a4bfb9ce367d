"""The places of one worker process for the jobs that it holds, kind by kind: neither kind waits for the other's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from omnifleet_shared.broker.kinds import KINDS, JobKind, Place

from .engine.limits import EngineLimits


@dataclass
class JobPlaces:
    """Who has which place. One of each kind, where there are several, is not for batch jobs."""

    most: Mapping[JobKind, int]
    """Places of each kind; none of a kind that is missing."""
    _taken: dict[str, Place] = field(default_factory=dict[str, Place])
    _counts: Counter[Place] = field(default_factory=Counter[Place])

    @property
    def total(self) -> int:
        """Jobs that may be held at once."""
        return sum(self.most.values())

    @property
    def all_taken(self) -> bool:
        """Whether no place is free, of those whose jobs were dropped on the way neither."""
        return all(self._count(self._counts, kind) >= most for kind, most in self.most.items())

    def take(self, tag: str, place: Place) -> None:
        """Give a message its place."""
        self.leave(tag)
        self._taken[tag] = place
        self._counts[place] += 1

    def leave(self, tag: str) -> Place | None:
        """Free a message's place, and give it; None where it has none."""
        place = self._taken.pop(tag, None)
        if place is not None:
            self._counts[place] -= 1
        return place

    def free(self, place: Place) -> int:
        """Places that are free, counting what is taken."""
        return self._free(self._counts, place)

    def free_beside(self, tags: Iterable[str], place: Place) -> int:
        """Places that are free where these messages alone have theirs."""
        return self._free(Counter(self._taken[tag] for tag in tags if tag in self._taken), place)

    def _free(self, counts: Counter[Place], place: Place) -> int:
        most = self.most.get(place.kind, 0)
        free = most - self._count(counts, place.kind)
        return max(0, min(free, max(1, most - 1) - counts[place]) if place.batch else free)

    @staticmethod
    def _count(counts: Counter[Place], kind: JobKind) -> int:
        return counts[Place(kind, True)] + counts[Place(kind, False)]


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
