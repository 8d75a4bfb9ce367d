"""Audio longer than the model's one window: where the windows lie, and how their clips become one recording.

Generation continues window by window as the published model does (docs/model.md, "Tasks"). An edit's windows are cut
from its source and know nothing of each other; `sound_edit.levels` brings them to one level before they are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..media.signal import crossfade
from ..models.audio_omni.sampling import CLIP_SAMPLES

PROMPT_SAMPLES = 441_000
"""What the model hears of an audio prompt: 10 s."""
FADE_SAMPLES = 44_100
"""Length of every crossfade: 1 s."""
MAX_STEP_DB = 24.0
"""Most that a part of speech is raised or lowered to the level of the first."""

_ADDED_SAMPLES = CLIP_SAMPLES - FADE_SAMPLES
_SILENCE = 1e-5
"""RMS under which a stretch tells nothing of its window's level."""

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


def edit_windows(samples: int, length: int = PROMPT_SAMPLES, fade: int = FADE_SAMPLES) -> list[range]:
    """Windows over a source of so many samples: one as long as it if it fits, else as few of `length` as will do.

    They are spread evenly, neighbours share at least `fade` samples, and none is shorter than what the model hears.
    """
    if samples <= length:
        return [range(samples)]
    last = samples - length
    hops = -(-last // (length - fade))
    starts = [number * last // hops for number in range(hops + 1)]
    return [range(start, start + length) for start in starts]


def join_edited(clips: Sequence[Samples], windows: Sequence[range], fade: int = FADE_SAMPLES) -> Samples:
    """The clips of `edit_windows` as one recording, each at the level that it has.

    Neighbours are crossfaded over the middle `fade` samples of what they share. Where they differ, the crossfade keeps
    the power; where they agree, the samples: windows that were not changed give back their source.

    Args:
        clips: float32 [channels, n], each as long as its window.
        windows: where each belongs.
        fade: samples that neighbours share at least.

    Returns:
        float32 [channels, samples], to the sample as long as the source.
    """
    joined = np.empty((len(clips[0]), windows[-1].stop), np.float32)
    joined[:, : len(windows[0])] = clips[0]
    for clip, (before, window) in zip(clips[1:], pairwise(windows), strict=True):
        both = _middle(window.start, before.stop, fade)
        later = clip[:, both.start - window.start :]
        joined[:, both.start : both.stop] = crossfade(joined[:, both.start : both.stop], later[:, :fade])
        joined[:, both.stop : window.stop] = later[:, fade:]
    return joined


def level_step(before: Samples, after: Samples) -> float:
    """The gain that gives `after` the RMS of `before`; 1 where either is silent."""
    wanted, found = (float(np.sqrt(np.square(one, dtype=np.float64).mean())) for one in (before, after))
    if min(wanted, found) < _SILENCE:
        return 1.0
    most: float = 10 ** (MAX_STEP_DB / 20)
    return min(most, max(1 / most, wanted / found))


def _middle(start: int, stop: int, fade: int) -> range:
    first = (start + stop - fade) // 2
    return range(first, first + fade)
