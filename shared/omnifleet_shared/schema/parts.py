"""The record of a part of a job that was given out before the job's end."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ..keys import SCHEMA_VERSION
from .base import Record
from .results import Artifact

PartKind = Literal["audio", "text"]


class StreamedPart(Record):
    """A part of a streamed job: all of them, one behind the other, are its result."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    number: Annotated[int, Field(ge=1)]
    """Its place among the job's parts, from 1."""
    text: str | None = None
    """Of an answer or a transcript, the white space between it and the part before included."""
    audio: Artifact | None = None
    """Samples as a wav file of 16 bits."""

    @model_validator(mode="after")
    def _audio_or_text(self) -> Self:
        if (self.audio is None) == (self.text is None):
            raise ValueError("a part is either audio or text")
        return self

    @property
    def kind(self) -> PartKind:
        """What it is."""
        return "text" if self.audio is None else "audio"
