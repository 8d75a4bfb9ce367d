"""Recordings for the demo, synthesised here: a street, rain and a siren at once, and a voice that says five vowels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from .training.grains import render
from .training.prompts import EDIT_FRAMES
from .training.sounds import make

RATE = 44_100
VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240))
"""First three formants in Hz of a, e, i, o, u (Peterson and Barney, 1952)."""

Wave = NDArray[np.float64]


def write_street(path: Path, seconds: float = 6.0) -> Path:
    """Traffic as falling noise in stereo, with a horn in the middle."""
    noise = np.random.default_rng(7)
    count = int(seconds * RATE)
    traffic = np.cumsum(noise.standard_normal((count, 2)), axis=0)
    traffic -= np.linspace(traffic[0], traffic[-1], count)
    time = np.arange(count) / RATE
    horn = sum(np.sin(2 * np.pi * pitch * time) for pitch in (392.0, 494.0)) * ((time > 2.5) & (time < 3.3))
    return _write(path, traffic / np.abs(traffic).max() * 0.5 + 0.2 * horn[:, None])


def write_mixture(path: Path) -> Path:
    """Nearly ten seconds of rain and a siren at once, as the checkpoint's sounds are made."""
    random = np.random.default_rng(3)
    sounds = [render(make(name, random, EDIT_FRAMES)) for name in ("rain", "siren")]
    # Of 16 bits the checkpoint hears the noise, which it did not learn to remove sounds from.
    return _write(path, np.sum(sounds, axis=0), "FLOAT")


def write_voice(path: Path) -> Path:
    """Five vowels of half a second each, sung on a falling pitch."""
    return _write(path, np.concatenate([_vowel(formants, 140 - 8 * n) for n, formants in enumerate(VOWELS)]))


def write_call(path: Path) -> Path:
    """The voice once more, as an MP3."""
    voice, rate = soundfile.read(write_voice(path.with_suffix(".wav")))
    path.with_suffix(".wav").unlink()
    soundfile.write(path, voice, rate)
    return path


def _vowel(formants: tuple[int, ...], pitch: float, seconds: float = 0.5) -> Wave:
    time = np.arange(int(seconds * RATE)) / RATE
    harmonics = np.arange(1, int(5000 / pitch)) * pitch
    levels: Wave = np.sum([1 / (1 + ((harmonics - formant) / 90) ** 2) for formant in formants], axis=0)
    wave: Wave = (levels[:, None] * np.sin(2 * np.pi * harmonics[:, None] * time)).sum(axis=0)
    return wave * np.hanning(time.size) ** 0.3


def _write(path: Path, wave: Wave, subtype: str = "PCM_16") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave / np.abs(wave).max() * 0.8, RATE, subtype)
    return path
