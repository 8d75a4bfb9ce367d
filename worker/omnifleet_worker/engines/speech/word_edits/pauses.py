"""Puts the borders between words where it is quiet: a recogniser knows them to a tenth of a second."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ....jobs.speech_edit.words import Word, spoken_form

SEARCH_SECONDS = 0.15
"""How far from where it was heard a border is looked for."""
LATE_SECONDS = 0.05
"""How much later than it is a border is heard, as a rule."""
DECIBELS_A_SECOND = 150.0
"""How much quieter it has to be where a border is taken for it that is farther away."""
SHORTEST_SECONDS = 0.04
"""What is shorter was not heard where it was said: it shares the time of the word before it."""
_FRAME_SECONDS, _PAUSE_FRAMES = 0.01, 8
_QUIET, _SILENT = 10 ** (-25 / 20), 10 ** (-45 / 20)
"""Level of a pause at most, and of what is before and after all words, against that of the words."""


def settle_words(words: Sequence[Word], wave: NDArray[np.float32], rate: int) -> list[Word]:
    """Return the words with borders at the quietest moments, and pauses between them where there are any.

    Args:
        words: as they were recognised, in order.
        wave: float32 [n], that says them.
        rate: in Hz.
    """
    spread, levels = _spread(words), _levels(wave, rate)
    # Nothing is quieter than what is around it by chance alone.
    quiet = _QUIET * float(np.percentile(levels, 90)) if levels.size else 0.0
    if spread:
        spread = _trimmed(spread, levels, quiet * _SILENT / _QUIET)
    starts, ends = [word.start for word in spread], [word.end for word in spread]
    for number, (word, following) in enumerate(pairwise(spread)):
        ends[number], starts[number + 1] = _border(word, following, levels, quiet)
    return [Word(word.text, start, max(start, end)) for word, start, end in zip(spread, starts, ends, strict=True)]


def _spread(words: Sequence[Word]) -> list[Word]:
    """Share the time of words of which some have none."""
    groups: list[list[Word]] = []
    for word in words:
        short = word.end - word.start < SHORTEST_SECONDS
        if groups and (short or groups[-1][-1].end - groups[-1][0].start < SHORTEST_SECONDS):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [word for group in groups for word in (_shared(group) if len(group) > 1 else group)]


def _trimmed(words: Sequence[Word], levels: NDArray[np.float64], silent: float) -> list[Word]:
    """From where the first word is really heard to where the last one is: a recogniser takes silence for parts of
    them, or leaves out how they begin and fade away."""
    first, last = words[0], words[-1]
    loud = levels > silent
    start = _edge(loud[::-1], len(loud) - _frame(first.end), len(loud) - _frame(first.start))
    end = _edge(loud, _frame(last.start), _frame(last.end))
    inner = [Word(first.text, (len(loud) - start) * _FRAME_SECONDS, first.end), *words[1:]]
    return [*inner[:-1], Word(last.text, inner[-1].start, end * _FRAME_SECONDS)]


def _edge(loud: NDArray[np.bool_], first: int, last: int) -> int:
    """One past the last loud frame from `first` on, with no pause before it behind `last`."""
    end = max(np.flatnonzero(loud[first:last]) + first + 1, default=last)
    if end < last - _PAUSE_FRAMES:
        return int(end)
    for frame in range(end, len(loud)):
        if not loud[frame : frame + _PAUSE_FRAMES].any():
            return frame
    return len(loud)


def _frame(seconds: float) -> int:
    return round(seconds / _FRAME_SECONDS)


def _shared(group: Sequence[Word]) -> list[Word]:
    letters = np.cumsum([0, *(len(spoken_form(word.text)) for word in group)])
    edges = (group[0].start + letters * (group[-1].end - group[0].start) / letters[-1]).tolist()
    return [Word(word.text, start, end) for word, (start, end) in zip(group, pairwise(edges), strict=True)]


def _levels(wave: NDArray[np.float32], rate: int) -> NDArray[np.float64]:
    """Level of each 10 ms, with half of its neighbours', so that no single period of a voice counts as quiet."""
    size = round(_FRAME_SECONDS * rate)
    frames = wave[: len(wave) // size * size].reshape(-1, size)
    power = np.square(frames, dtype=np.float64).mean(axis=1)
    smooth = np.convolve(np.pad(power, 1, mode="edge"), [0.25, 0.5, 0.25], mode="valid") if power.size else power
    levels: NDArray[np.float64] = np.sqrt(smooth)
    return levels


def _border(word: Word, following: Word, levels: NDArray[np.float64], quiet: float) -> tuple[float, float]:
    """The end of a word and the start of the next: the quietest moment near where one was heard, and its pause."""
    middle = max(word.start, (word.end + following.start) / 2 - LATE_SECONDS)
    earliest = max(middle - SEARCH_SECONDS, (word.start + word.end) / 2)
    latest = min(middle + SEARCH_SECONDS, (following.start + following.end) / 2)
    first, last = _frame(earliest), min(len(levels), _frame(latest) + 1)
    if last - first < 1:
        return middle, middle
    away = np.abs(np.arange(first, last) * _FRAME_SECONDS - middle)
    decibels = 20 * np.log10(np.maximum(levels[first:last], 1e-6))
    lowest = first + int((decibels + DECIBELS_A_SECOND * away).argmin())
    if levels[lowest] > quiet:
        return (lowest + 0.5) * _FRAME_SECONDS, (lowest + 0.5) * _FRAME_SECONDS
    start, end = lowest, lowest + 1
    while start > _frame(word.start) and levels[start - 1] <= quiet:
        start -= 1
    while end < min(len(levels), _frame(following.end)) and levels[end] <= quiet:
        end += 1
    return start * _FRAME_SECONDS, end * _FRAME_SECONDS
