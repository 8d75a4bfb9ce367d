"""From a pair's plan to its samples: the source of the edit, and what it should become."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidTrainingData, MediaEmpty

from ..media.decode import DecodedAudio, decode_audio
from ..media.signal import resample, to_mono
from ..models.audio_omni.sampling import SAMPLE_RATE
from .pair_plan import Ingredient, PairPlan

Samples = NDArray[np.float32]

_PEAK = 0.99
_SILENCE = 1e-4


def mix(plan: PairPlan) -> tuple[Samples, Samples]:
    """Make a pair: source and target, each float32 [n], mono at 44.1 kHz. The same plan gives the same samples.

    Raises:
        InvalidTrainingData: a recording is gone, or is not the one that the plan was drawn with.
        MediaError: a recording cannot be decoded, or is silent.
    """
    count = round(plan.seconds * SAMPLE_RATE)
    other = _at_level(plan.other, count, plan.level_db)
    named = _at_level(plan.named, count, plan.level_db + plan.snr_db)
    both = other + named
    peak = max(float(np.abs(one).max()) for one in (other, named, both))
    # One factor for all, so that what an edit leaves alone is the same in source and target.
    other, named, both = (one * np.float32(min(1.0, _PEAK / peak)) for one in (other, named, both))
    pairs = {"add": (other, both), "remove": (both, other), "extract": (both, named), "style": (other, named)}
    return pairs[plan.task]


def _at_level(ingredient: Ingredient, count: int, level_db: float) -> Samples:
    stretch = _loudest(_read(ingredient), count)
    level = float(np.sqrt(np.square(stretch, dtype=np.float64).mean()))
    if level < _SILENCE:
        raise MediaEmpty(f"{ingredient.path} is silent", "corpora", "Take it out of its corpus")
    placed = np.zeros(count, np.float32)
    start = round(ingredient.place * (count - len(stretch)))
    placed[start : start + len(stretch)] = stretch * np.float32(10 ** (level_db / 20) / level)
    return placed


def _read(ingredient: Ingredient) -> Samples:
    """All of a recording, mono at 44.1 kHz, at its speed."""
    try:
        data = ingredient.path.read_bytes()
    except OSError as error:
        raise InvalidTrainingData(f"{ingredient.path} cannot be read: {error.strerror}", "corpora") from error
    if hashlib.sha256(data).hexdigest() != ingredient.sha256:
        raise InvalidTrainingData(f"{ingredient.path} is not the file that the pair was drawn with", "corpora")
    audio = to_mono(decode_audio(data, field=str(ingredient.path)))
    faster = DecodedAudio(audio.samples, round(audio.sample_rate * ingredient.speed))
    samples: Samples = resample(faster, SAMPLE_RATE).samples[0].astype(np.float32, copy=False)
    return samples


def _loudest(samples: Samples, count: int) -> Samples:
    """The stretch of `count` samples that has the most power; all of a shorter recording."""
    if len(samples) <= count:
        return samples
    power = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    start = int(np.argmax(power[count:] - power[:-count]))
    return samples[start : start + count]
