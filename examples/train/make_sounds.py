"""Make the sounds that the examples of this folder name: a tone, noise, and both; and a corpus of tones and noises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100
HERE = Path(__file__).parent


def tone(hertz: float, seconds: float) -> np.ndarray:
    return 0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)


def noise(seed: int, seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def write(name: str, samples: np.ndarray) -> None:
    (HERE / name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(HERE / name, samples, RATE)


write("sounds/tone.wav", tone(440, 1))
write("sounds/noise.wav", noise(0, 1))
write("sounds/both.wav", tone(440, 1) + noise(0, 1))
for number in range(5):
    write(f"corpus/tone/{number}.wav", tone(220 + 110 * number, 3))
    write(f"corpus/noise/{number}.wav", noise(number + 1, 3))
print(f"{HERE} holds the sounds")
