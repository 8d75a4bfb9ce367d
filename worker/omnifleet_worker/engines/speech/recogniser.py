"""A speech recogniser beside a model that only speaks: it tells what is said in recordings, and when."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_shared.schema.capabilities import Capabilities

from ...jobs.job_context import JobContext
from ...jobs.speech_edit.words import Word, split_words
from ...jobs.timestamps.pauses import find_speech
from ...media.signal import split_at_pauses
from ...models.speech_model import Samples
from .folder_card import read_capabilities

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

    def recognise(self, samples: Samples, rate: int, language: str | None) -> list[Word]:
        """Return the words of a recording, in order, as `split_words` splits their text.

        Args:
            samples: mono float32 [n], of at most `PART_SECONDS`.
            rate: in Hz.
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
            found = recogniser.recognise(part, RATE, language) if find_speech(part, RATE, PART_SECONDS) else []
        words += [Word(word.text, start + word.start, start + word.end) for word in found]
        start += len(part) / RATE
    return words


class TransformersRecogniser:
    """Recognises with a model of transformers that tells when words are said: Whisper, or one with CTC.

    On the CPU, one part at a time: the device's memory is the speaking model's.

    Args:
        recognise: transformers' pipeline for it.
        card: of its folder.
    """

    def __init__(self, recognise: Any, card: Capabilities) -> None:
        self.card = card
        self._recognise = recognise
        self._one_at_a_time = threading.Lock()
        config = getattr(recognise.model, "generation_config", None)
        self._takes_language = bool(getattr(config, "is_multilingual", False))

    @classmethod
    def from_pretrained(cls, folder: Path) -> TransformersRecogniser:
        """Load from a local folder, saved with its processor; the card is `card.json` or the front matter of README.md.

        Raises:
            CheckpointInvalid: the folder is missing, incomplete, of another kind of model, or without its licence.
        """
        # Seconds, which a worker without a recogniser is spared.
        from transformers import MODEL_FOR_CTC_MAPPING, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, AutoConfig, pipeline
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if not any(type(config) in kinds for kinds in (MODEL_FOR_CTC_MAPPING, MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING)):
                raise _not_a_recogniser(folder, f"holds a {config.model_type}, which recognises no speech")
            files: dict[str, Any] = dict.fromkeys(("model", "tokenizer", "feature_extractor"), str(folder))
            make: Any = pipeline  # whose overloads know no task of this name
            options = {"device": "cpu", "dtype": torch.float32, "trust_remote_code": False}
            recognise = make("automatic-speech-recognition", **files, **options)
        except (OSError, ValueError, KeyError) as error:
            raise _not_a_recogniser(folder, f"cannot be loaded: {error}") from error
        if recognise.type not in ("ctc", "seq2seq_whisper"):
            raise _not_a_recogniser(folder, "does not tell when words are said")
        if recognise.feature_extractor.sampling_rate != RATE:
            raise _not_a_recogniser(
                folder, f"is for {recognise.feature_extractor.sampling_rate} Hz, and not for {RATE}"
            )
        return cls(recognise, read_capabilities(folder, "transformers"))

    def recognise(self, samples: Samples, rate: int, language: str | None) -> list[Word]:
        """See `Recogniser`."""
        known = {"language": language} if language is not None and self._takes_language else {}
        with self._one_at_a_time, torch.inference_mode():
            found = self._recognise(
                {"raw": samples, "sampling_rate": rate}, return_timestamps="word", generate_kwargs=known
            )
        space = " " if self._recognise.type == "ctc" else ""  # which Whisper's pieces begin with themselves
        chunks = [(space + one["text"], *one["timestamp"]) for one in found["chunks"]]
        return words_of(chunks, len(samples) / rate)


def words_of(pieces: Sequence[tuple[str, float | None, float | None]], seconds: float) -> list[Word]:
    """Return the words of what was recognised in pieces that need not be words.

    Args:
        pieces: text as it follows on the text before, when it begins and when it ends, where that is known.
        seconds: length of the recording.
    """
    text, starts, ends = "", list[float](), list[float]()
    for piece, start, end in pieces:
        edges = np.linspace(start or 0.0, seconds if end is None else end, len(piece) + 1).tolist()
        text, starts, ends = text + piece, starts + edges[:-1], ends + edges[1:]
    words, at = list[Word](), 0
    for word in split_words(text):
        first = text.index(word, at)
        at = first + len(word)
        words.append(Word(word, starts[first], ends[at - 1]))
    return words


def _not_a_recogniser(folder: Path, problem: str) -> CheckpointInvalid:
    remedy = f"Let {_SETTING} name a folder with a speech recogniser of transformers, saved with its processor"
    return CheckpointInvalid(f"{folder} {problem}", _SETTING, remedy)
