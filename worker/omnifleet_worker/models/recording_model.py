"""What a model that works through recordings is to the engine: one stretch in, its outcome out, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .speech_model import Samples

RecordingOutcome = str | Samples
"""What was heard, as a record in JSON; or what was taken of it, float32 [1, n]."""


@dataclass(frozen=True, kw_only=True)
class RecordingInputs:
    """A stretch of a recording.

    Attributes:
        wave: float32 [n], mono, at the rate of the model.
        about: the sound that is looked for, in words; None where everything counts.
        language: that is spoken, as the model's card names it; None where nobody said.
        timed: whether it matters when words are said.
    """

    wave: Samples
    about: str | None = None
    language: str | None = None
    timed: bool = False


class RecordingModel(Protocol):
    """A loaded model. It raises OmnifleetError for what is the request's or the device's fault."""

    def work(self, inputs: RecordingInputs) -> RecordingOutcome:
        """Work through a stretch on the engine's thread: the same inputs have the same outcome, whatever came first."""
        ...
