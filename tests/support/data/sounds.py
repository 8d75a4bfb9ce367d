"""Sounds that edits are measured with: voices and noise of ten seconds, and what a model may make of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

RATE = 44_100
SAMPLES = 10 * RATE
Mono = NDArray[np.float32]


def voice(hertz: float, seed: int, level: float = 0.1) -> Mono:
    """Twenty partials with vibrato, on and off like syllables; `level` is its RMS."""
    random = np.random.default_rng(seed)
    time = np.arange(SAMPLES) / RATE
    phase = 2 * np.pi * np.cumsum(hertz * (1 + 0.03 * np.sin(2 * np.pi * 5 * time + seed))) / RATE
    tone = sum(np.sin(number * phase + random.uniform(0, 6)) / number for number in range(1, 21))
    syllables = np.repeat(random.random(SAMPLES * 8 // RATE + 1) > 0.4, RATE // 8 + 1)[:SAMPLES].astype(float)
    return scaled(tone * np.convolve(syllables, np.hanning(2_000) / 1_000, mode="same"), level)


def noise(seed: int, level: float = 0.05) -> Mono:
    """Pink noise; `level` is its RMS."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(SAMPLES))
    return scaled(np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 10), SAMPLES), level)


def with_other_phases(sound: Mono, seed: int = 1) -> Mono:
    """The same power everywhere, and none of the phases: what a model makes that has only heard it."""
    window = torch.hann_window(2048)
    spectrum = torch.stft(torch.from_numpy(sound), 2048, 512, window=window, pad_mode="constant", return_complex=True)
    phases = 2 * np.pi * torch.rand(spectrum.shape, generator=torch.Generator().manual_seed(seed))
    made = torch.istft(torch.polar(spectrum.abs(), phases), 2048, 512, window=window, length=len(sound)).numpy()
    return scaled(made, float(np.sqrt(np.square(sound).mean())))


def scaled(sound: NDArray[np.floating], level: float) -> Mono:
    """The sound at that RMS."""
    return (sound * level / np.sqrt(np.square(sound).mean())).astype(np.float32)


def decibels(sound: NDArray[np.floating]) -> float:
    """The level over all samples; -200 of silence."""
    return 10 * float(np.log10(np.square(sound, dtype=np.float64).mean() + 1e-20))
