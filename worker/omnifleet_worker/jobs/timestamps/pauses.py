"""Where somebody speaks in a recording, told by its level: what lies between pauses."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ...media.signal import split_at_pauses

FRAME_SECONDS = 0.02
WINDOW_SECONDS = 30.0
"""Speech is told from the background by the levels of so many seconds, and of as many before and after: a recording
may get louder as it goes on."""
PAUSE_SECONDS = 0.3
"""Shortest pause; what is quieter for less belongs to the speech around it."""
JOINED_SECONDS = 0.5
"""Pauses below this lie within a stretch, as long as it does not get too long."""
MARGIN_SECONDS = 0.1
"""What is kept of the pauses at both ends of speech: words begin and end quietly."""
QUIET_DB = 30.0
"""Most that speech lies under the loudest of its window."""
SPREAD = 0.35
"""From the background to the loudest of a window in decibels, the share above which it is speech."""
LEAST_SPREAD_DB = 6.0
"""A window whose levels differ by less is all speech or, below `SILENCE_DB`, all silence."""
SILENCE_DB = -70.0
"""Level against full scale below which nothing is speech."""


def find_speech(samples: NDArray[np.float32], sample_rate: int, max_seconds: float) -> list[range]:
    """Find the stretches in which something is said.

    Args:
        samples: float32 [n].
        sample_rate: samples per second.
        max_seconds: longest stretch; a longer one is cut where it is quietest.

    Returns:
        Samples of each stretch, in order and apart; none where all is silent.
    """
    size = round(FRAME_SECONDS * sample_rate)
    loud = _loud_frames(samples, size, round(WINDOW_SECONDS / FRAME_SECONDS))
    margin = round(MARGIN_SECONDS * sample_rate)
    found = [
        range(max(0, first * size - margin), min(len(samples), last * size + margin)) for first, last in _runs(loud)
    ]
    cut = [part for stretch in found for part in _cut(samples, stretch, sample_rate, max_seconds)]
    return _joined(cut, round(max_seconds * sample_rate), sample_rate)


def _loud_frames(samples: NDArray[np.float32], size: int, window: int) -> NDArray[np.bool_]:
    """Whether somebody speaks in each frame of `size` samples; the last one may be shorter."""
    # A window at a time: the squares of two hours at once would take a gigabyte.
    starts = range(0, len(samples), size * window)
    levels = np.concatenate([_levels(samples[start : start + size * window], size) for start in starts])
    frames = range(0, len(levels), window)
    # Its neighbours are heard too: in a window that is all pause, or all speech, nothing tells the one from the other.
    around = [levels[max(0, first - window) : first + 2 * window] for first in frames]
    return np.concatenate(
        [levels[first : first + window] > _threshold(near) for first, near in zip(frames, around, strict=True)]
    )


def _levels(samples: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    """Level of each frame against full scale, in decibels."""
    starts = np.arange(0, len(samples), size)
    lengths = np.diff(np.append(starts, len(samples)))
    power = np.add.reduceat(np.square(samples, dtype=np.float64), starts) / lengths
    levels: NDArray[np.float64] = 10 * np.log10(np.maximum(power, 1e-12))
    return levels


def _threshold(levels: NDArray[np.float64]) -> float:
    background, loudest = np.percentile(levels, [10, 99.5])
    if loudest - background < LEAST_SPREAD_DB:
        return SILENCE_DB
    return max(SILENCE_DB, float(loudest - QUIET_DB), float(background + SPREAD * (loudest - background)))


def _runs(loud: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First frame, and one past the last, of each run of speech with no pause in it."""
    (frames,) = np.nonzero(loud)
    if not frames.size:
        return []
    (gaps,) = np.nonzero(np.diff(frames) > PAUSE_SECONDS / FRAME_SECONDS)
    firsts, lasts = [frames[0], *frames[gaps + 1]], [*frames[gaps], frames[-1]]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


def _cut(samples: NDArray[np.float32], stretch: range, sample_rate: int, max_seconds: float) -> list[range]:
    lengths = [len(part) for part in split_at_pauses(samples[stretch.start : stretch.stop], sample_rate, max_seconds)]
    borders = np.cumsum([stretch.start, *lengths]).tolist()
    return [range(first, last) for first, last in pairwise(borders)]


def _joined(stretches: list[range], longest: int, sample_rate: int) -> list[range]:
    joined: list[range] = []
    nearest = (JOINED_SECONDS - 2 * MARGIN_SECONDS) * sample_rate
    for stretch in stretches:
        # What touches was cut apart.
        near = joined and 0 < stretch.start - joined[-1].stop < nearest
        if near and stretch.stop - joined[-1].start <= longest:
            joined[-1] = range(joined[-1].start, stretch.stop)
        else:
            joined.append(stretch)
    return joined
