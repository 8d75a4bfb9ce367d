"""What a request for changed words may mean: changes, and readings among which the recording decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

EVERY = 0
"""`which` that stands for all places where the words are said."""


@dataclass(frozen=True)
class Spoken:
    """Words that are said: `which` counts the times that they are, -1 being the last and 0 all; None is not told."""

    words: str
    which: int | None = None


@dataclass(frozen=True)
class Position:
    """`size` words of the recording by their place: the first ones from word `which`, or the last ones to `-which`."""

    which: int
    size: int = 1


Place = Spoken | Position


@dataclass(frozen=True)
class Replace:
    """Say `new` where `old` is."""

    old: Place
    new: str


@dataclass(frozen=True)
class Delete:
    """Cut `old` out."""

    old: Place


@dataclass(frozen=True)
class Insert:
    """Say `new` before or after `anchor`."""

    new: str
    where: Literal["before", "after"]
    anchor: Place


@dataclass(frozen=True)
class NewTranscript:
    """Say this instead; words that stay are left as they are."""

    text: str


Change = Replace | Delete | Insert | NewTranscript
Reading = tuple[Change, ...]
"""One way to understand one part of a request."""
Rank = tuple[Reading, ...]
"""Readings that are equally likely: where the recording allows two of them, nobody knows which is meant."""
Clause = tuple[Rank, ...]
"""All ways to understand one part of a request, the likeliest first. A later rank counts where no earlier one fits."""


def certain(change: Change) -> Clause:
    """Make the clause that has one reading alone."""
    return (((change,),),)
