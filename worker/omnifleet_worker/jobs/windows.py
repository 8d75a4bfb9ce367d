"""Audio longer than the model's one window: where the windows lie, and how their clips become one recording.

Generation continues window by window as the published model does (docs/model.md, "Tasks"). An edit's windows are cut
from its source and know nothing of each other; each comes back scaled to a peak of its own, so they are levelled first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from ..models.audio_omni.sampling import CLIP_SAMPLES

PROMPT_SAMPLES = 441_000
"""What the model hears of an audio prompt: 10 s."""
FADE_SAMPLES = 44_100
"""Length of every crossfade: 1 s."""
MAX_STEP_DB = 24.0
"""Most that an edited window is raised or lowered against the one before."""

_ADDED_SAMPLES = CLIP_SAMPLES - FADE_SAMPLES
_SILENCE = 1e-5
"""RMS under which a stretch tells nothing of its window's level."""
_LEAST_CORRELATION = -0.5
"""What cancels out more than this is not made up for: it would take more than 3 dB."""

Samples = NDArray[np.float32]


def count_generated(samples: int) -> int:
    """Return the number of windows that generating so many samples takes; at least one."""
    return max(1, -((FADE_SAMPLES - samples) // _ADDED_SAMPLES))


def continuation_prompt(clip: Samples) -> Samples:
    """The audio prompt of the window after `clip` [channels, 483328]: its first 10 s, mono [441000]."""
    mono: Samples = clip[:, :PROMPT_SAMPLES].mean(axis=0, dtype=np.float32)
    return mono


def join_generated(clips: Sequence[Samples]) -> Samples:
    """Clips [channels, 483328] one after the other, with linear crossfades of 44,100 samples.

    Returns:
        float32 [channels, 483328 + 439228 · (clips - 1)]; a single clip as it is.
    """
    joined = np.empty((len(clips[0]), CLIP_SAMPLES + _ADDED_SAMPLES * (len(clips) - 1)), np.float32)
    joined[:, :CLIP_SAMPLES] = clips[0]
    rise = np.linspace(0, 1, FADE_SAMPLES, dtype=np.float32)
    for number, clip in enumerate(clips[1:], start=1):
        start = number * _ADDED_SAMPLES
        fade = joined[:, start : start + FADE_SAMPLES]
        fade[:] = fade * (1 - rise) + clip[:, :FADE_SAMPLES] * rise
        joined[:, start + FADE_SAMPLES : start + CLIP_SAMPLES] = clip[:, FADE_SAMPLES:]
    return joined


def newest_generated(clips: Sequence[Samples], samples: int) -> Samples:
    """What the newest of the clips adds to a recording of so many samples that no later one will change.

    It begins with the crossfade from the clip before, and ends where the one to the next clip will begin, or with the
    recording. What all clips add, one behind the other, is `join_generated` of them.
    """
    number, start = len(clips) - 1, max(0, len(clips) - 2) * _ADDED_SAMPLES
    end = samples if len(clips) == count_generated(samples) else len(clips) * _ADDED_SAMPLES
    return join_generated(clips[-2:])[:, number * _ADDED_SAMPLES - start : end - start]


def edit_windows(samples: int) -> list[range]:
    """Windows over a source of so many samples: one as long as it if it fits, else as few of 441,000 as will do.

    They are spread evenly, neighbours share at least 44,100 samples, and none is shorter than what the model hears.
    """
    if samples <= PROMPT_SAMPLES:
        return [range(samples)]
    last = samples - PROMPT_SAMPLES
    hops = -(-last // (PROMPT_SAMPLES - FADE_SAMPLES))
    starts = [number * last // hops for number in range(hops + 1)]
    return [range(start, start + PROMPT_SAMPLES) for start in starts]


def join_edited(clips: Sequence[Samples], windows: Sequence[range]) -> Samples:
    """The clips of `edit_windows` as one recording, at the level of the first.

    Each clip is raised or lowered, by at most 24 dB, until it has the power of the one before where they overlap, and
    the join follows that. Neighbours are crossfaded over the middle second of what they share. Where they differ, the
    crossfade keeps the power; where they agree, the samples: windows that were not changed give back their source.

    Args:
        clips: float32 [channels, n], n at least the window's length; what lies beyond it is left out.
        windows: where each belongs.

    Returns:
        float32 [channels, samples], to the sample as long as the source.
    """
    fitted = [clip[:, : len(window)] for clip, window in zip(clips, windows, strict=True)]
    joined = np.empty((len(clips[0]), windows[-1].stop), np.float32)
    joined[:, : len(windows[0])] = fitted[0]
    for clip, gain, (before, window) in zip(fitted[1:], _levels(fitted, windows)[1:], pairwise(windows), strict=True):
        fade = _middle(window.start, before.stop)
        levelled = clip[:, fade.start - window.start :] * np.float32(gain)
        faded = _crossfade(joined[:, fade.start : fade.stop], levelled[:, :FADE_SAMPLES])
        joined[:, fade.start : fade.stop] = faded
        joined[:, fade.stop : window.stop] = levelled[:, FADE_SAMPLES:]
    return joined


def _levels(clips: Sequence[Samples], windows: Sequence[range]) -> list[float]:
    """The gain of every clip, 1 for the first."""
    steps = [
        level_step(clip[:, after.start - before.start :], following[:, : before.stop - after.start])
        for (clip, following), (before, after) in zip(pairwise(clips), pairwise(windows), strict=True)
    ]
    return list(accumulate([1.0, *steps], lambda gain, step: gain * step))


def level_step(before: Samples, after: Samples) -> float:
    """The gain that gives `after` the RMS of `before`; 1 where either is silent."""
    wanted, found = (float(np.sqrt(np.square(one, dtype=np.float64).mean())) for one in (before, after))
    if min(wanted, found) < _SILENCE:
        return 1.0
    most: float = 10 ** (MAX_STEP_DB / 20)
    return min(most, max(1 / most, wanted / found))


def _middle(start: int, stop: int) -> range:
    first = (start + stop - FADE_SAMPLES) // 2
    return range(first, first + FADE_SAMPLES)


def _crossfade(before: Samples, after: Samples) -> Samples:
    """Fade from one [channels, n] to the other at constant power, as loud as they are correlated.

    Sine and cosine keep the power of strangers and add 3 dB to twins. So both are divided by what they do to the
    power of signals with the measured correlation: twins get gains that add up to 1, strangers keep theirs.
    """
    angle = np.linspace(0, np.pi / 2, before.shape[1])
    change = np.sqrt(1 + _correlation(before, after) * np.sin(2 * angle))
    fall, rise = np.cos(angle) / change, np.sin(angle) / change
    faded: Samples = (before * fall + after * rise).astype(np.float32)
    return faded


def _correlation(before: Samples, after: Samples) -> float:
    """Of both signals over all channels, between -0.5 and 1; 0 where either is silent."""
    one, other = before.ravel().astype(np.float64), after.ravel().astype(np.float64)
    scale = float(np.sqrt(one.dot(one) * other.dot(other)))
    return min(1.0, max(_LEAST_CORRELATION, float(one.dot(other)) / scale)) if scale else 0.0
