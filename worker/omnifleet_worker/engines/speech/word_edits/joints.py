"""Finds where two recordings that say almost the same begin to differ, and end to: where one goes over into the other.

A recogniser tells when words are said to a tenth of a second, and half a syllable is heard. But the words around an
edit are said in both recordings: their sounds are followed from both ends, for as long as they are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchaudio.functional import melscale_fbanks

Samples = NDArray[np.float64]

RATE = 16_000
FRAME_SECONDS = 0.01
SEARCH_SECONDS, AHEAD_SECONDS = 0.25, 0.1
"""How far a joint may lie from where the recogniser heard it: on the side of the words in common, and on the other."""
BACK_SECONDS = 0.08
"""How far back into the words in common a joint is moved, to where it is quiet."""
_LEAST_FRAMES = 15
"""Words in common that are shorter tell nothing."""
_ALIKE = 0.4
"""From the distance of the same sounds to that of any sounds, the share below which two are the same."""
_WINDOW, _BANDS, _FLOOR_DB = 400, 26, 60.0


@dataclass(frozen=True)
class Joints:
    """Seconds at which two recordings go over into each other, `start` before what differs and `end` behind it."""

    start: float
    end: float


def find_joints(source: Samples, made: Samples, heard: tuple[Joints, Joints]) -> tuple[Joints, Joints] | None:
    """Find where two recordings can be joined, in each of them.

    Args:
        source: float64 [n] at 16 kHz.
        made: float64 [m] at 16 kHz, which says the same but for some words.
        heard: about when those are said in either, as a recogniser tells.

    Returns:
        None where the two are not alike enough to tell, or have hardly anything in common.
    """
    distances, levels = _distances(source, made), (_levels(source), _levels(made))
    places = [[_frame(one.start), _frame(one.end)] for one in heard]
    same = _same(distances, places)
    if same is None:
        return None
    starts = _leave(same - distances, (places[0][0], places[1][0]), levels)
    size = distances.shape
    flipped = (size[0] - places[0][1], size[1] - places[1][1])
    ends = _leave((same - distances)[::-1, ::-1], flipped, (levels[0][::-1], levels[1][::-1]))
    joints = [Joints(starts[side] * FRAME_SECONDS, (size[side] - ends[side]) * FRAME_SECONDS) for side in (0, 1)]
    return (joints[0], joints[1]) if all(one.start <= one.end for one in joints) else None


def _frame(seconds: float) -> int:
    return round(seconds / FRAME_SECONDS)


def _same(distances: Samples, places: list[list[int]]) -> float | None:
    """The distance below which two frames are of the same sound, told by the words in common."""
    (before, after), (made_before, made_after) = places
    common = [distances[: max(0, before - 10), :made_before], distances[after + 10 :, made_after:]]
    nearest = [part.min(axis=1) for part in common if min(part.shape) >= _LEAST_FRAMES]
    if not nearest:
        return None
    alike, any_two = float(np.median(np.concatenate(nearest))), float(np.median(distances))
    return alike + _ALIKE * (any_two - alike)


def _leave(gains: Samples, heard: tuple[int, int], levels: tuple[Samples, Samples]) -> tuple[int, int]:
    """The frames in both at which what they have in common from the beginning ends, or a quiet moment before that."""
    reach, ahead = _frame(SEARCH_SECONDS), _frame(AHEAD_SECONDS)
    if min(heard) < _LEAST_FRAMES:
        return heard
    gains = gains[: heard[0] + ahead, : heard[1] + ahead]
    totals, steps = _follow(gains)
    near = totals[max(0, heard[0] - reach) :, max(0, heard[1] - reach) :]
    if not near.size:
        return heard
    place = np.unravel_index(int(near.argmax()), near.shape)
    at = (max(0, heard[0] - reach) + int(place[0]), max(0, heard[1] - reach) + int(place[1]))
    path = _trace(steps, at, _frame(BACK_SECONDS))
    return min(path, key=lambda one: float(levels[0][one[0]] + levels[1][one[1]]))


def _follow(gains: Samples) -> tuple[Samples, NDArray[np.int8]]:
    """The most that a path from a beginning to each pair of frames gains, and its last step: 0 both, 1 one, 2 other."""
    rows, columns = gains.shape
    totals, steps = np.zeros((rows, columns)), np.zeros((rows, columns), np.int8)
    totals[0], totals[:, 0] = gains[0], gains[:, 0]
    for total in range(2, rows + columns - 1):
        row = np.arange(max(1, total - columns + 1), min(rows, total))
        column = total - row
        both = totals[row - 1, column - 1] + 2 * gains[row, column]
        one, other = totals[row - 1, column] + gains[row, column], totals[row, column - 1] + gains[row, column]
        ways = np.stack([both, one, other])
        steps[row, column] = ways.argmax(axis=0)
        totals[row, column] = ways.max(axis=0)
    return totals, steps


def _trace(steps: NDArray[np.int8], at: tuple[int, int], back: int) -> list[tuple[int, int]]:
    """The pairs on a path before its end, the last of which is first."""
    path, (row, column) = [at], at
    first = row - back
    while row > max(0, first) and column > 0:
        step = steps[row, column]
        row, column = row - (step != 2), column - (step != 1)
        path.append((int(row), int(column)))
    return path


def _levels(samples: Samples) -> Samples:
    """Level of each frame in decibels; what is 60 dB below the loudest is as quiet as can be."""
    frames = _frames(samples)
    level = 10 * np.log10(np.maximum(np.square(frames).mean(axis=1), 1e-12))
    levels: Samples = np.maximum(level, level.max() - _FLOOR_DB)
    return levels


def _frames(samples: Samples) -> Samples:
    hop = round(FRAME_SECONDS * RATE)
    padded = np.pad(samples, (_WINDOW // 2, _WINDOW))
    frames: Samples = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::hop][: len(samples) // hop + 1]
    return frames


def _distances(source: Samples, made: Samples) -> Samples:
    """How far the sounds of each pair of frames are apart, float64 [frames of one, frames of the other]."""
    one, other = _sounds(source), _sounds(made)
    squares = np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)[None] - 2 * one @ other.T
    distances: Samples = np.sqrt(np.maximum(0.0, squares) / _BANDS)
    return distances


def _sounds(samples: Samples) -> Samples:
    """Decibels of mel bands, without what the voice and the microphone have in all of them."""
    power = np.square(np.abs(np.fft.rfft(_frames(samples) * np.hanning(_WINDOW), 512, axis=1)))
    banks = melscale_fbanks(257, 60.0, 7600.0, _BANDS, RATE).to(torch.float64).numpy()
    decibels = 10 * np.log10(np.maximum(power @ banks, 1e-12))
    decibels = np.maximum(decibels, decibels.max() - _FLOOR_DB)
    loud = decibels.mean(axis=1) > decibels.mean(axis=1).max() - 30
    sounds: Samples = decibels - decibels[loud].mean(axis=0)
    return sounds
