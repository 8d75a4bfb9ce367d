"""Tells the demo's sounds apart by their spectra, and has seen nothing of the model: it learns from waves alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .grains import HOP, RATE, render
from .prompts import HALF
from .sounds import NAMES, Levels, make

Wave = NDArray[np.floating]

_BANDS, _WINDOW = 48, 4096
_FLOOR = 1e-3
_HISS = 0.03
"""Standard deviation of the loudest, in levels of grains."""


class Listener:
    """A linear classifier over band levels, their spread and their changes.

    Args:
        examples: sounds of each name, alone, that it learns from; and half as many pairs of each.
        seed: of those.
    """

    def __init__(self, examples: int = 40, seed: int = 10) -> None:
        random = np.random.default_rng(seed)
        sounds: list[tuple[tuple[str, ...], Levels]] = [
            ((name,), make(name, random, HALF)) for name in NAMES for _ in range(examples)
        ]
        for _ in range(examples * len(NAMES)):
            names = tuple(str(name) for name in random.choice(NAMES, 2, replace=False))
            sounds.append((names, np.sum([make(name, random, HALF) for name in names], axis=0)))
        # A faint hiss of any loudness is no sound of its own.
        hissing = [levels + random.uniform(0, _HISS) * random.standard_normal(levels.shape) for _, levels in sounds]
        features = np.stack([_features(render(levels)) for levels in hissing])
        wanted = np.array([[float(name in names) for name in NAMES] for names, _ in sounds])
        self._centre, self._scale = features.mean(axis=0), features.std(axis=0) + 1e-6
        given = self._with_one(features)
        self._weights = np.linalg.solve(given.T @ given + 3.0 * np.eye(given.shape[1]), given.T @ wanted)

    def hear(self, wave: Wave, count: int) -> set[str]:
        """The names of so many sounds that are most likely in it."""
        scores = self._with_one(_features(wave)[None]) @ self._weights
        return {NAMES[place] for place in np.argsort(scores[0])[-count:]}

    def _with_one(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([(features - self._centre) / self._scale, np.ones((len(features), 1))], axis=1)


def _features(wave: Wave) -> NDArray[np.float64]:
    frames = np.lib.stride_tricks.sliding_window_view(wave / (np.abs(wave).max() + 1e-9), _WINDOW)[::HOP]
    hertz = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    spectrum = np.fft.rfft(frames * np.hanning(_WINDOW), axis=1).T / _WINDOW
    edges = np.geomspace(80, 16_000, _BANDS + 1)
    power = np.abs(spectrum) ** 2
    bands = np.stack([power[(hertz >= a) & (hertz < b)].sum(axis=0) for a, b in pairwise(edges)])
    levels = np.log10(bands + _FLOOR**2)
    return np.concatenate([levels.mean(axis=1), levels.std(axis=1), np.abs(np.diff(levels)).mean(axis=1)])
