"""Real speech: English that a small synthesiser says, and a small recogniser that hears it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omnifleet_worker.jobs.speech_edit.words import Word, spoken_forms
from torchaudio.functional import resample

from .whisper_folder import write_whisper_folder

SPOKEN_RATE = 24_000
"""Hz, of what is said."""
_HEARD_RATE = 16_000
Samples = NDArray[np.float32]


def speak(text: str, *, speed: float = 1.0, seed: int = 1) -> Samples:
    """Say an English text, float32 [n] at `SPOKEN_RATE`: the same text and seed give the same samples.

    Args:
        text: to say.
        speed: against the voice's own, 0.5 to 2.
        seed: of the noise in it.
    """
    said: Samples = np.asarray(_voice()(text, speed=speed, seed=seed), np.float32)
    return said


def hear(samples: NDArray[Any], rate: int = SPOKEN_RATE) -> list[Word]:
    """Hear the words of a recording, [n] or [channels, n], of at most half a minute, with their times.

    Times are right to a tenth of a second, but for those of words of which several are said at once.
    """
    mono = np.atleast_2d(samples).mean(axis=0).astype(np.float32)
    wave = resample(torch.from_numpy(mono), rate, _HEARD_RATE).numpy()
    found = _recogniser()({"raw": wave, "sampling_rate": _HEARD_RATE}, return_timestamps="word")
    end = len(wave) / _HEARD_RATE
    return [
        Word(one["text"].strip(), one["timestamp"][0], end if one["timestamp"][1] is None else one["timestamp"][1])
        for one in found["chunks"]
    ]


def heard(samples: NDArray[Any], rate: int = SPOKEN_RATE) -> list[str]:
    """Hear the words of a recording in the form in which words are compared: without case and punctuation."""
    return spoken_forms([word.text for word in hear(samples, rate)])


@cache
def _voice() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


@cache
def _recogniser() -> Any:
    from transformers import pipeline
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    with TemporaryDirectory() as folder:
        files = str(write_whisper_folder(Path(folder)))
        make: Any = pipeline
        return make("automatic-speech-recognition", model=files, tokenizer=files, feature_extractor=files, device="cpu")
