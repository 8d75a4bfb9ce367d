"""What is said in a recording, and when: words and segments with their times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from .base import Record

_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]」』）\s]*$")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|Mrs?|Ms|Dr|Prof|Sr|Jr|St|vs|e\.g|i\.e|Mme|Mlle|Nr|Hr|z\.\s?B|bzw|usw|u\.\s?a)\.\s*$"
)
Seconds = Annotated[float, Field(ge=0)]


class HeardWord(Record):
    """A word of a recording and its time in it."""

    text: str
    """As it was transcribed, with the punctuation that touches it."""
    start: Seconds
    end: Seconds


class HeardSegment(Record):
    """A sentence, or what is said between two pauses of a recording, and its time in it."""

    text: str
    start: Seconds
    end: Seconds


class Transcript(Record):
    """The times of a transcript, over the whole recording: in order, none of them beyond its end, none overlapping."""

    seconds: Seconds
    """Length of the recording."""
    words: tuple[HeardWord, ...] | None = None
    """All words, where the job asked for `timestamps` of them; Chinese and Japanese have one a character."""
    segments: tuple[HeardSegment, ...]
    """Everything that is said, by sentences where there are words, else by pauses."""
    # Left out where there is none: clients of older releases refuse the field.
    language: Annotated[str | None, Field(exclude_if=lambda language: language is None)] = None
    """ISO 639 code of what is spoken, as the model that recognised it says; None where it says none."""

    @model_validator(mode="after")
    def _times_are_in_order(self) -> Self:
        timed: dict[str, Sequence[HeardWord | HeardSegment]] = {"words": self.words or (), "segments": self.segments}
        for name, spans in timed.items():
            if any(one.end < one.start for one in spans) or any(b.start < a.end for a, b in pairwise(spans)):
                raise ValueError(f"{name} are not in the order of their times")
            if spans and spans[-1].end > self.seconds:
                raise ValueError(f"{name} end after the recording")
        return self


def place_texts(text: str, parts: Sequence[HeardWord | HeardSegment]) -> list[int]:
    """Return where each part begins in the text that they are of, which holds them in their order.

    Raises:
        ValueError: it does not.
    """
    places: list[int] = []
    at = 0
    for part in parts:
        places.append(text.index(part.text, at))
        at = places[-1] + len(part.text)
    return places


def ends_sentence(text: str) -> bool:
    """Whether a text ends with the end of a sentence, and not with an abbreviation such as Dr."""
    return _SENTENCE_END.search(text) is not None and _ABBREVIATION.search(text) is None
