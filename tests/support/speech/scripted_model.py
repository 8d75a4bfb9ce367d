"""A model that speaks by a script: it says tones, and what else a text tells it to do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_worker.models.speech_model import Samples, SpeechInputs

RATE = 16_000
PIECE = 800
"""Samples of a piece: 50 ms."""


def speech_card(**more: Any) -> Capabilities:
    """What it can do: everything that a model of its kind can, unless told otherwise."""
    fields = {
        "name": "scripted-speech",
        "engine": "scripted",
        "revision": "1",
        "licence": "Apache-2.0",
        "commercial_use": True,
        "tasks": {"generate.tts": {"languages": ["en", "ru", "zh", "ar", "hi"]}},
        "sample_rate": RATE,
        "cloning": True,
        "streaming": True,
    }
    return Capabilities.model_validate(fields | more)


class ScriptedSpeech:
    """Says one piece of each letter: the tone of the letter, the seed and the voice.

    Args:
        places: texts at the same time.
        step: called before each piece with its text.
    """

    def __init__(self, places: int = 1, step: Callable[[str], None] = lambda text: None) -> None:
        self.sample_rate = RATE
        self.places = places
        self.most_steps = 500
        self.closed: list[str] = []
        self.asked: list[SpeechInputs] = []
        self.unwell: str | None = None
        self.is_closed = False
        self._step = step

    def speak(self, inputs: SpeechInputs) -> Iterator[Samples]:
        self.asked.append(inputs)
        voice = 0.0 if inputs.voice is None else float(np.abs(inputs.voice.wave).sum())
        random = np.random.default_rng([inputs.seed, round(voice)])
        try:
            for letter in inputs.text:
                self._step(inputs.text)
                pitch = 100 + ord(letter) % 400 + 20 * random.random()
                length = round(PIECE / inputs.speed)
                yield (0.5 * np.sin(2 * np.pi * pitch * np.arange(length) / RATE)).astype(np.float32)
        finally:
            self.closed.append(inputs.text)

    def why_unwell(self) -> str | None:
        return self.unwell

    def close(self) -> None:
        self.is_closed = True


def slow_step(text: str) -> None:
    """Take the time of a step, kill the process, or hang, as the text says."""
    time.sleep(0.05)
    if "die" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "hang" in text:
        time.sleep(3600)
