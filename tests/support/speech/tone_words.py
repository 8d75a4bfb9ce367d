"""Speech of a small made-up kind: each word is a vowel of its own at one pitch, which can be said and recognised.

A model speaks it in the voice, or the pitch, that it is asked for; a recogniser hears it in whatever recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_worker.engines.speech import recogniser
from omnifleet_worker.jobs.speech_edit.words import Word, spoken_forms
from omnifleet_worker.models.speech_model import Samples, SpeechInputs

RATE = 24_000
PITCH = 120.0
WORD_SECONDS, PAUSE_SECONDS = 0.3, 0.08
WORDS = ("hello", "my", "dear", "old", "good", "friend", "how", "are", "you", "bye")
"""All that can be said."""
_LOWEST, _APART, _WIDTH = 600.0, 360.0, 80.0


def say(text: str, rate: int = RATE, *, pitch: float = PITCH, level: float = 0.2, lead: float = 0.2) -> Samples:
    """Say words, float32 [n]: silence before them and after them."""
    pieces = [np.zeros(round(lead * rate))]
    for word in spoken_forms(text.split()):
        pieces += [level * _vowel(WORDS.index(word), rate, pitch), np.zeros(round(PAUSE_SECONDS * rate))]
    return np.concatenate([*pieces, np.zeros(round(lead * rate))]).astype(np.float32)


def _vowel(number: int, rate: int, pitch: float) -> NDArray[np.float64]:
    times = np.arange(round(WORD_SECONDS * rate)) / rate
    harmonics = np.arange(1, int(rate / 2 / pitch))
    strength = np.exp(-(((harmonics * pitch - _LOWEST - _APART * number) / _WIDTH) ** 2)) + 0.02
    strength[:3] += 0.5  # which all vowels have in common
    wave = (strength[:, None] * np.cos(2 * np.pi * pitch * harmonics[:, None] * times)).sum(axis=0)
    swell: NDArray[np.float64] = np.minimum(1, np.minimum(times, times[::-1]) / 0.02)
    return wave / np.abs(wave).max() * swell


def hear(samples: NDArray[np.floating], rate: int) -> list[Word]:
    """Recognise words in a recording, float [n]."""
    size = round(0.01 * rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    level = np.sqrt(np.square(frames, dtype=np.float64).mean(axis=1))
    loud = np.concatenate([[False], level > 0.1 * level.max(initial=0), [False]])
    edges = np.flatnonzero(np.diff(loud.astype(int))).reshape(-1, 2)
    spoken = [(first, last) for first, last in edges.tolist() if last - first >= 8]
    return [Word(_nearest(samples[a * size : b * size], rate), a * 0.01, b * 0.01) for a, b in spoken]


def heard(samples: NDArray[np.floating], rate: int) -> str:
    """Recognise the words of a recording, as a text."""
    return " ".join(word.text for word in hear(samples, rate))


def _nearest(samples: NDArray[np.floating], rate: int) -> str:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 8192))
    spectrum[: round(450 * 8192 / rate)] = 0
    # Between the harmonics, whose strongest may lie beside the vowel's middle.
    around = np.convolve(np.square(spectrum), np.ones(round(2 * PITCH * 8192 / rate)), mode="same")
    highest = float(around.argmax()) * rate / 8192
    return WORDS[min(range(len(WORDS)), key=lambda number: abs(_LOWEST + _APART * number - highest))]


class ToneRecogniser:
    """See `Recogniser`.

    Args:
        mishear: changes what is heard, to be told wrong.
    """

    def __init__(self, mishear: Callable[[list[Word]], list[Word]] = lambda words: words) -> None:
        self.card = Capabilities(
            name="tones",
            engine="tones",
            licence="MIT",
            commercial_use=True,
            tasks={"understand.transcribe": {"languages": ["en", "de"]}},
        )
        self.times = 0
        self._mishear = mishear

    def recognise(self, samples: Samples, language: str | None) -> list[Word]:
        self.times += 1
        return self._mishear(hear(samples, recogniser.RATE))


class ToneSpeech:
    """See `SpeechModel`: it says a word a step.

    Args:
        step: called before each word with the text.
        pitch: of its voice.
    """

    def __init__(self, step: Callable[[str], None] = lambda text: None, pitch: float = PITCH) -> None:
        self.sample_rate = RATE
        self.places = 1
        self.most_steps = 20
        self.asked: list[SpeechInputs] = []
        self._step = step
        self._pitch = pitch

    @property
    def texts(self) -> Sequence[str]:
        """What it was to say, so far."""
        return [one.text for one in self.asked]

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        self.asked.append(inputs)
        for word in inputs.text.split():
            self._step(inputs.text)
            yield say(word, pitch=self._pitch, level=0.6, lead=0.0)

    def why_unwell(self) -> str | None:
        return None

    def close(self) -> None:
        """Nothing is held open."""
