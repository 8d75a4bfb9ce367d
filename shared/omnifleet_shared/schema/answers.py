"""What the structured tasks of `understand` answer: one record a task, told apart by `kind`, which is its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from .base import Record


def _one_text(value: Any) -> Any:
    return "; ".join(map(str, cast(Sequence[object], value))) if isinstance(value, list) else value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


Words = Annotated[
    str, BeforeValidator(_one_text), StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)
]
"""A model gives a list where it has several things to say; it becomes one text."""

Moment = Annotated[float, Field(ge=0)]
"""Seconds from the beginning of the recording."""


class _Said(Record):
    # A model writes this, and a newer release may: what is not known is left out, not refused.
    model_config = ConfigDict(extra="ignore")


class Label(_Said):
    """A sound event."""

    name: Words
    category: Words
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """The model's own estimate, as it is written; not calibrated."""


class Classification(_Said):
    """classify: the sound events of a clip."""

    kind: Literal["classify"] = "classify"
    labels: tuple[Label, ...]


class Source(_Said):
    """What makes a sound, and when, where that is told."""

    name: Words
    start: Moment | None = None
    end: Moment | None = None


class Sources(_Said):
    """sources: everything that is heard."""

    kind: Literal["sources"] = "sources"
    sources: tuple[Source, ...]


class SpeakerTurn(_Said):
    """A stretch of time in which somebody speaks."""

    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.end < self.start:
            raise ValueError("a turn ends before it starts")
        return self


class Speaker(_Said):
    """A voice."""

    name: Words
    """What the voice is called by: a name that falls, or `Speaker 1`."""
    description: Words
    turns: tuple[SpeakerTurn, ...] = ()
    """When it speaks, where that is told."""


class Speakers(_Said):
    """speakers: how many people speak, and who they are."""

    kind: Literal["speakers"] = "speakers"
    count: Annotated[int, Field(ge=0)]
    speakers: tuple[Speaker, ...]
    """Those that are described; in a crowd not all are."""

    @model_validator(mode="after")
    def _counts_whom_it_describes(self) -> Self:
        if len(self.speakers) > self.count:
            raise ValueError("more speakers are described than counted")
        return self


class VoiceGender(_Said):
    """How one speaker's voice sounds."""

    name: Words
    gender: Annotated[Literal["male", "female", "unclear"], BeforeValidator(_lower)]


class Gender(_Said):
    """gender: how each speaker's voice sounds."""

    kind: Literal["gender"] = "gender"
    speakers: tuple[VoiceGender, ...]


class Sarcasm(_Said):
    """sarcasm: whether it is meant as it is said."""

    kind: Literal["sarcasm"] = "sarcasm"
    sarcastic: bool
    evidence: Words


class Scene(_Said):
    """scene: where a clip was recorded."""

    kind: Literal["scene"] = "scene"
    place: Words
    evidence: Words


class WordFeedback(_Said):
    """A word that is said otherwise than a native speaker says it."""

    word: Words
    said: Words
    """Phonemes, in IPA."""
    expected: Words
    """Phonemes, in IPA."""
    advice: Words


class Feedback(_Said):
    """feedback: a learner's pronunciation."""

    kind: Literal["feedback"] = "feedback"
    words: tuple[WordFeedback, ...]
    """Empty where nothing is off."""
    overall: Words


Answer = Annotated[
    Classification | Sources | Speakers | Gender | Sarcasm | Scene | Feedback, Field(discriminator="kind")
]

ANSWERS: dict[str, type[Classification | Sources | Speakers | Gender | Sarcasm | Scene | Feedback]] = {
    "classify": Classification,
    "sources": Sources,
    "speakers": Speakers,
    "gender": Gender,
    "sarcasm": Sarcasm,
    "scene": Scene,
    "feedback": Feedback,
}
"""The record of each task that answers with one; the others answer with text alone."""
