"""Answers of the structured tasks of `understand`: one record per task, discriminated by `kind`, the task's name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, cast

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from .base import Record


def _one_text(value: Any) -> Any:
    return "; ".join(map(str, cast(Sequence[object], value))) if isinstance(value, list) else value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


AnswerText = Annotated[
    str, BeforeValidator(_one_text), StringConstraints(strip_whitespace=True, min_length=1, max_length=2_000)
]
"""Text from a model; a list, which models give where there are several things to say, is joined to one text."""

Moment = Annotated[float, Field(ge=0)]
"""Seconds from the start of the recording."""


class _ModelAnswer(Record):
    # A model writes this, or a newer release: unknown fields are left out, not refused.
    model_config = ConfigDict(extra="ignore")


class Label(_ModelAnswer):
    """A sound event that was recognised."""

    name: AnswerText
    category: AnswerText
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """The model's own estimate, as it writes it; not calibrated."""


class Classification(_ModelAnswer):
    """Answer of `classify`: the sound events of a clip."""

    kind: Literal["classify"] = "classify"
    labels: tuple[Label, ...]


class Source(_ModelAnswer):
    """A source of sound, and when it is heard, where the model says so."""

    name: AnswerText
    start: Moment | None = None
    end: Moment | None = None


class Sources(_ModelAnswer):
    """Answer of `sources`: everything that is heard."""

    kind: Literal["sources"] = "sources"
    sources: tuple[Source, ...]


class SpeakerTurn(_ModelAnswer):
    """An interval in which somebody speaks."""

    start: Moment
    end: Moment

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> Self:
        if self.end < self.start:
            raise ValueError("a turn ends before it starts")
        return self


class Speaker(_ModelAnswer):
    """A speaker and what the voice is like."""

    name: AnswerText
    """A name that is mentioned, or `Speaker 1`."""
    description: AnswerText
    turns: tuple[SpeakerTurn, ...] = ()
    """When this speaker speaks, where the model says so."""


class Speakers(_ModelAnswer):
    """Answer of `speakers`: how many people speak, and who they are."""

    kind: Literal["speakers"] = "speakers"
    count: Annotated[int, Field(ge=0)]
    speakers: tuple[Speaker, ...]
    """The speakers that are described; in a crowd not all are."""

    @model_validator(mode="after")
    def _counts_whom_it_describes(self) -> Self:
        if len(self.speakers) > self.count:
            raise ValueError("more speakers are described than counted")
        return self


class VoiceGender(_ModelAnswer):
    """How one speaker's voice sounds."""

    name: AnswerText
    gender: Annotated[Literal["male", "female", "unclear"], BeforeValidator(_lower)]


class Gender(_ModelAnswer):
    """Answer of `gender`: how each speaker's voice sounds."""

    kind: Literal["gender"] = "gender"
    speakers: tuple[VoiceGender, ...]


class Sarcasm(_ModelAnswer):
    """Answer of `sarcasm`: whether something is meant sarcastically."""

    kind: Literal["sarcasm"] = "sarcasm"
    sarcastic: bool
    evidence: AnswerText


class Scene(_ModelAnswer):
    """Answer of `scene`: where a clip was recorded."""

    kind: Literal["scene"] = "scene"
    place: AnswerText
    evidence: AnswerText


class WordFeedback(_ModelAnswer):
    """A word that is pronounced otherwise than a native speaker would."""

    word: AnswerText
    said: AnswerText
    """Phonemes in IPA."""
    expected: AnswerText
    """Phonemes in IPA."""
    advice: AnswerText


class Feedback(_ModelAnswer):
    """Answer of `feedback`: how good a learner's pronunciation is."""

    kind: Literal["feedback"] = "feedback"
    words: tuple[WordFeedback, ...]
    """Words to work on; empty where all are right."""
    overall: AnswerText


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
"""The record class of each task that answers with one; the others answer with text alone."""
