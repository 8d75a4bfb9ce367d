"""What a model that speaks a text as a whole is to the engine: no more than an iterator of samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReferenceVoice:
    """A recording of the voice to speak with.

    Attributes:
        wave: float32 [n], mono.
        sample_rate: in Hz.
        text: what is said in it; None where nobody said.
    """

    wave: Samples
    sample_rate: int
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class SpeechInputs:
    """A text to say.

    Attributes:
        text: what to say.
        language: its language, as the model's card names it; None where the job names none.
        voice: to speak with; only for a model that takes one.
        speed: how fast to say it, 1 as the model does by itself; only for a model that can.
        seconds: how long it takes to say, likewise; None for as long as it likes.
        most_steps: the most pieces that it is given in.
        seed: of all random numbers.
    """

    text: str
    language: str | None = None
    voice: ReferenceVoice | None = None
    speed: float = 1.0
    seconds: float | None = None
    most_steps: int = 1
    seed: int


class SpeechModel(Protocol):
    """A loaded model. Its methods raise OmnifleetError for what is the request's, the server's or the device's fault.

    Attributes:
        sample_rate: in Hz, of all that it says.
        places: texts that it can be saying at the same time; 1 for one that has a single state, or whose random
            numbers come from one generator.
        most_steps: the most pieces that a text is given in; what shows as progress counts to it.
    """

    sample_rate: int
    places: int
    most_steps: int

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        """Say a text in pieces, float32 [n], mono: each is a step of the engine, and between two of them a job can end.

        The same inputs give the same samples, whatever else is said meanwhile. A piece may be empty: one that is waited
        for. Where nobody wants the rest, the iterator is closed if it is a generator.
        """
        ...

    def why_unwell(self) -> str | None:
        """Return why it can say nothing for now, if so. Called every few seconds, on a thread of its own."""
        ...

    def close(self) -> None:
        """Let go of what is held open: nothing is asked of it any more."""
        ...
