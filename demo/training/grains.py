"""The 64 grains that the demo's sounds are made of, one for each latent channel.

Each is a combination of the 2,048 functions of one frame of an MDCT (Princen, Johnson, Bradley, 1987) with a sine
window, which are orthonormal over all frames: a sound made of grains is coded without loss as their levels by frame.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

HOP = 2048
"""Samples of a latent frame. A grain is twice as long, and begins 1,024 samples before its frame."""
RATE = 44_100
GRAINS = 64
LEVEL = 20.0
"""Latent of a grain that sounds with level 1."""

Floats = NDArray[np.float64]

LOW = tuple(range(6))
HIGH = tuple(range(6, 12))
LADDER = tuple(range(12, 28))
"""Steps of chirps and sirens, the lowest first."""
BEEP = (28, 29, 30)
VOWELS = {"ah": 31, "ee": 32, "oo": 33, "eh": 34, "oh": 35}
RAIN = tuple(range(36, 52))
SURF = tuple(range(52, 62))
CLICK = (62, 63)

_PITCHES = {
    **dict(zip(LOW, (5, 6, 7, 8, 9, 10), strict=True)),
    **dict(zip(HIGH, (60, 66, 72, 80, 88, 96), strict=True)),
    **dict(zip(LADDER, range(24, 56, 2), strict=True)),
    **dict(zip(BEEP, (116, 128, 140), strict=True)),
}
"""In periods a frame (21.5 Hz), so that a steady tone has the same level in every frame."""
_FORMANTS = {
    "ah": (730, 1090, 2440),
    "ee": (270, 2290, 3010),
    "oo": (300, 870, 2240),
    "eh": (530, 1840, 2480),
    "oh": (570, 840, 2410),
}
"""Hz (Peterson and Barney, 1952)."""
_VOICE_PITCH = 6
_RAIN_HZ, _SURF_HZ = (3500.0, 14_000.0), (250.0, 1400.0)


def render(levels: Floats) -> Floats:
    """Sound [samples] of the grains' levels [frames, 64]."""
    frames = len(levels)
    sound = np.zeros((frames + 1) * HOP)
    pieces = levels @ grains()
    for frame in range(frames):
        sound[frame * HOP : (frame + 2) * HOP] += pieces[frame]
    return sound[HOP // 2 : HOP // 2 + frames * HOP]


@cache
def grains() -> Floats:
    """Waves of the grains, [64, 4096]."""
    return _spectra() @ _mdct()


@cache
def detectors() -> Floats:
    """What gives a grain's level as its inner product with a frame, [64, 4096]: grains that overlap are told apart."""
    spectra = _spectra()
    return np.linalg.solve(spectra @ spectra.T, spectra) @ _mdct()


@cache
def _mdct() -> Floats:
    """Functions of one frame, [2048, 4096]."""
    sample, bin_ = np.arange(2 * HOP) + 0.5, np.arange(HOP) + 0.5
    window = np.sin(np.pi / (2 * HOP) * sample)
    waves: Floats = np.sqrt(2 / HOP) * window * np.cos(np.pi / HOP * np.outer(bin_, sample + HOP / 2))
    return waves


@cache
def _spectra() -> Floats:
    """Grains by the functions of a frame, [64, 2048]."""
    spectra: Floats = np.zeros((GRAINS, HOP))
    for grain, pitch in _PITCHES.items():
        overtones = (1.0, 0.5, 0.25) if grain in LOW else (1.0,)
        spectra[grain] = _steady({pitch * n: level for n, level in enumerate(overtones, 1)})
    for name, grain in VOWELS.items():
        spectra[grain] = _steady(_vowel(_FORMANTS[name]))
    for bands, limits in ((RAIN, _RAIN_HZ), (SURF, _SURF_HZ)):
        _fill_with_noise(spectra, bands, limits)
    for number, grain in enumerate(CLICK):
        spectra[grain] = _click(1800.0 + 900.0 * number)
    lengths: Floats = np.linalg.norm(spectra, axis=1, keepdims=True)
    return 4.0 * spectra / lengths


def _steady(partials: dict[int, float]) -> Floats:
    time = 2 * np.pi / HOP * np.arange(2 * HOP)
    wave: Floats = np.sum([level * np.sin(pitch * time) for pitch, level in partials.items()], axis=0)
    return _mdct() @ wave


def _vowel(formants: tuple[int, ...]) -> dict[int, float]:
    step = RATE / HOP
    pitches = range(_VOICE_PITCH, 180, _VOICE_PITCH)
    return {pitch: sum(1 / (1 + ((pitch * step - formant) / 90) ** 2) for formant in formants) for pitch in pitches}


def _fill_with_noise(spectra: Floats, bands: tuple[int, ...], limits: tuple[float, float]) -> None:
    """Give each band a noise that always sounds the same."""
    random = np.random.default_rng(bands[0])
    edges = np.geomspace(*limits, len(bands) + 1) / (RATE / 2 / HOP)
    for grain, first, end in zip(bands, edges, edges[1:], strict=False):
        width = round(end) - round(first)
        spectra[grain, round(first) : round(end)] = random.standard_normal(width) * np.hanning(width + 2)[1:-1]


def _click(hertz: float) -> Floats:
    time = np.arange(500) / RATE
    wave = np.zeros(2 * HOP)
    # At the middle of the window, where the frames beside it hardly hear it.
    wave[HOP : HOP + 500] = np.exp(-time * 500) * np.sin(2 * np.pi * hertz * time)
    return _mdct() @ wave
