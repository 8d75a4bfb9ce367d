"""The demo's sounds as levels of grains by latent frame, and the words for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .grains import BEEP, CLICK, GRAINS, HIGH, LADDER, LOW, RAIN, SURF, VOWELS

Levels = NDArray[np.float64]
Random = np.random.Generator

TEXTS = {
    "low": ("a low tone", "a deep tone", "a low note"),
    "high": ("a high tone", "one high note", "a steady high tone"),
    "chirps": ("chirps", "birds", "chirps of birds"),
    "siren": ("a siren", "the siren of a car", "a car siren"),
    "beeps": ("beeps", "an alarm", "the beeps of an alarm"),
    "clicks": ("clicks", "a clock", "the clicks of a clock"),
    "rain": ("rain", "heavy rain", "rain on the roof"),
    "surf": ("surf", "waves of the sea", "the sea"),
    "ah": ("a voice saying ah",),
    "ee": ("a voice saying ee",),
    "oo": ("a voice saying oo",),
}
NAMES = tuple(TEXTS)


def make(name: str, random: Random, frames: int) -> Levels:
    """Levels [frames, 64] of one sound of this name; silent in the first and the last frame.

    Rain's drops and the surf's spray are drawn anew each time; of the others the level alone.
    """
    levels = _MAKERS[name](random, frames) * random.uniform(0.8, 1.0)
    levels[0] = levels[-1] = 0
    return levels


def _steady(band: int) -> Callable[[Random, int], Levels]:
    def tone(_: Random, frames: int) -> Levels:
        levels = np.zeros((frames, GRAINS))
        levels[:, band] = 1
        return levels

    return tone


def _gated(band: int, sounding: int, silent: int) -> Callable[[Random, int], Levels]:
    def pulses(_: Random, frames: int) -> Levels:
        levels = np.zeros((frames, GRAINS))
        levels[:, band] = np.arange(frames) % (sounding + silent) < sounding
        return levels

    return pulses


def _climb(places: Levels) -> Levels:
    """Levels of the ladder's steps for places on it, from 0 to 1; below 0 is silence."""
    levels = np.zeros((len(places), GRAINS))
    steps = np.clip(places, 0, 1) * (len(LADDER) - 1)
    lower = np.minimum(steps.astype(int), len(LADDER) - 2)
    sounding, frames = places >= 0, np.arange(len(places))
    levels[frames, LADDER[0] + lower] = (1 - (steps - lower)) * sounding
    levels[frames, LADDER[0] + lower + 1] = (steps - lower) * sounding
    return levels


def _chirps(_: Random, frames: int) -> Levels:
    length, gap = 8, 4
    place = np.arange(frames) % (length + gap)
    return _climb(np.where(place < length, place / (length - 1), -1.0))


def _siren(_: Random, frames: int) -> Levels:
    return _climb(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / 59))


def _clicks(_: Random, frames: int) -> Levels:
    levels = np.zeros((frames, GRAINS))
    places = np.arange(4, frames, 8)
    levels[places, np.resize(CLICK, len(places))] = 1.5
    return levels


def _rain(random: Random, frames: int) -> Levels:
    levels = np.zeros((frames, GRAINS))
    size = (frames, len(RAIN))
    levels[:, list(RAIN)] = (random.uniform(size=size) < 0.12) * random.uniform(0.5, 1, size)
    return levels


def _surf(random: Random, frames: int) -> Levels:
    levels = np.zeros((frames, GRAINS))
    size = (frames, len(SURF))
    swell = 0.55 - 0.45 * np.cos(2 * np.pi * np.arange(frames) / 59)
    levels[:, list(SURF)] = (random.uniform(size=size) < 0.25) * random.uniform(0.5, 1, size) * swell[:, None]
    return levels


_MAKERS: dict[str, Callable[[Random, int], Levels]] = {
    "low": _steady(LOW[2]),
    "high": _steady(HIGH[2]),
    "chirps": _chirps,
    "siren": _siren,
    "beeps": _gated(BEEP[1], 4, 4),
    "clicks": _clicks,
    "rain": _rain,
    "surf": _surf,
    **{name: _gated(VOWELS[name], 10, 5) for name in ("ah", "ee", "oo")},
}
