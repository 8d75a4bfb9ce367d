"""A speech recogniser beside a model that only speaks: it tells what is said in recordings, and when."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_shared.schema.capabilities import Capabilities

from ...jobs.job_context import JobContext
from ...jobs.speech_edit.words import Word
from ...jobs.timestamps.pauses import find_speech
from ...media.signal import split_at_pauses
from ...models.speech_model import Samples
from ..folder_card import read_capabilities

if TYPE_CHECKING:
    from ..recordings.recogniser import SpeechRecogniser

RATE = 16_000
"""Hz, of what is recognised."""
PART_SECONDS = 25.0
"""Longest part of a recording that is recognised at once; between two of them a job can end."""
_SETTING = "OMNIFLEET_RECOGNISER"


class Recogniser(Protocol):
    """Tells what is said. Called from many threads.

    Attributes:
        card: its name, its licence and the languages that it knows.
    """

    card: Capabilities

    def recognise(self, samples: Samples, language: str | None) -> list[Word]:
        """Return the words of a recording, in order, as `split_words` splits their text.

        Args:
            samples: mono float32 [n] at `RATE`, of at most `PART_SECONDS`.
            language: that is spoken; None where nobody said.
        """
        ...


def recognise_parts(context: JobContext, recogniser: Recogniser, wave: Samples, language: str | None) -> list[Word]:
    """Recognise a recording of any length, mono float32 [n] at `RATE`, in parts; silent ones say nothing."""
    words: list[Word] = []
    start = 0.0
    for part in split_at_pauses(wave, RATE, PART_SECONDS):
        # A stage for each part, so that a cancelled job ends after one.
        with context.stage("conditioned"):
            found = recogniser.recognise(part, language) if find_speech(part, RATE, PART_SECONDS) else []
        words += [Word(word.text, start + word.start, start + word.end) for word in found]
        start += len(part) / RATE
    return words


class TransformersRecogniser:
    """Recognises with a model of transformers that tells when words are said: Whisper, or one with CTC.

    On the CPU, one part at a time: the device's memory is the speaking model's.

    Args:
        model: recognises.
        card: of its folder.
    """

    def __init__(self, model: SpeechRecogniser, card: Capabilities) -> None:
        self.card = card
        self._model = model
        self._one_at_a_time = threading.Lock()

    @classmethod
    def from_pretrained(cls, folder: Path) -> TransformersRecogniser:
        """Load from a local folder, saved with its processor; the card is `card.json` or the front matter of README.md.

        Raises:
            CheckpointInvalid: the folder is missing, incomplete, of another kind of model, or without its licence.
        """
        # Seconds, which a worker without a recogniser is spared.
        from ..recordings.recogniser import open_recogniser

        model = open_recogniser(folder, torch.device("cpu"), torch.float32, setting=_SETTING)
        if not model.times_words:
            remedy = "Name one that does: Whisper, or one with CTC"
            raise CheckpointInvalid(f"{folder} does not tell when words are said", _SETTING, remedy)
        return cls(model, read_capabilities(folder, "transformers"))

    def recognise(self, samples: Samples, language: str | None) -> list[Word]:
        """See `Recogniser`."""
        with self._one_at_a_time:
            return list(self._model.recognise(samples, language).words)
