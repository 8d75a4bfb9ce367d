"""What brings the model's clips to the level of their source: each has a peak of 1, whatever it was made of.

All of the source is in what something was added to, and all of what is left was in the source. So there are cells of
time and frequency in which the two differ by one and the same factor; in all others the one is louder that has more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

Mono = NDArray[np.float32]
Cells = NDArray[np.float64]

MOST_DB = 24.0
"""Most that a gain is from the one that gives a clip the power of its source, or that an unheard window is raised."""
BRINGS, TAKES_AWAY = ("add",), ("remove", "extract")
"""Tasks whose results hold all of the source, and such whose results are all in the source."""

_SILENCE = 1e-5
"""RMS under which a stretch tells nothing of its level."""
_CHANGED = 1e-11
"""Of the source's power: a clip that differs by less is the source at another level."""
_FFT = 4096
_CELL = (4, 3)
"""Bins and frames of a cell: 43 Hz and 0.14 s."""
_RANGE_DB = 50.0
"""Cells so far below the loudest tell nothing."""
_BEST, _COHERENT = 0.95, 0.7
"""Share of the cells, by their votes, of which the best is taken for unchanged, and the least coherence that it has."""
_BIN_DB, _WIDTH_DB = 0.25, 1.0
"""Resolution of the votes on a gain, and how far apart cells may be that agree."""
_HIGH = 0.2
"""Of the highest peak of the votes: others so high count too."""
_AGREEMENT = 0.1
"""Share of the cells, by their votes, that must agree."""


def level_windows(made: Sequence[Mono], windows: Sequence[range], source: Mono, task: str) -> list[float]:
    """Return what brings each window to the source's level.

    A window without any sound of the source is brought to the level of its neighbour where they overlap.

    Args:
        made: the model's clips, mono [n], each as long as its window.
        windows: which samples of the source each was made of; neighbours overlap.
        source: float32 [samples].
        task: add, remove, extract or style.
    """
    gains = [find_gain(clip, source[one.start : one.stop], task) for clip, one in zip(made, windows, strict=True)]
    overlaps = [before.stop - after.start for before, after in pairwise(windows)]
    if all(gain is None for gain in gains):
        gains[0] = 1.0
    for k, overlap in enumerate(overlaps):
        before, gain = gains[k], gains[k + 1]
        if gain is None and before is not None:
            gains[k + 1] = _next_to(made[k][-overlap:] * before, made[k + 1][:overlap])
    for k, overlap in reversed(list(enumerate(overlaps))):
        gain, after = gains[k], gains[k + 1]
        if gain is None and after is not None:
            gains[k] = _next_to(made[k + 1][:overlap] * after, made[k][-overlap:])
    return [gain for gain in gains if gain is not None]


def find_gain(made: Mono, source: Mono, task: str) -> float | None:
    """Return what brings a clip to the level of its source; None where the source is silent.

    Where nothing tells what was kept, the clip gets the power of the source.

    Args:
        made: float32 [n].
        source: float32 [n].
        task: add, remove, extract or style.
    """
    if _rms(source) < _SILENCE:
        return None
    if _rms(made) < _SILENCE:
        return 1.0
    if (same := _same(made, source)) is not None:
        return same
    if task in TAKES_AWAY:
        return 1 / _gain_of(source, made, holds_all=True)
    return _gain_of(made, source, holds_all=task in BRINGS)


def _same(made: Mono, source: Mono) -> float | None:
    """The gain that makes the one of the other, exactly; None where something was changed."""
    one, other = made.astype(np.float64), source.astype(np.float64)
    gain = float(one.dot(other) / one.dot(one))
    rest = other - gain * one
    return gain if rest.dot(rest) < _CHANGED * other.dot(other) else None


def _gain_of(one: Mono, other: Mono, *, holds_all: bool) -> float:
    """What brings one sound to the level of another; `holds_all` where all of the other is in it."""
    even = 20 * np.log10(_rms(other) / _rms(one))
    least, most = (even if holds_all else even - MOST_DB), even + MOST_DB
    cells = _Pair.of(one, other)
    gain = cells.coherent_db() if holds_all else None
    if gain is None:
        gain = cells.agreed_db(least, most, holds_all=holds_all)
    return float(10 ** (np.clip(even if gain is None else gain, least, most) / 20))


@dataclass(frozen=True, eq=False)
class _Pair:
    """The power of two sounds, and what they have in common, in the cells where the second is heard."""

    one: Cells
    other: Cells
    common: Cells

    @classmethod
    def of(cls, one: Mono, other: Mono) -> Self:
        first, second = _spectrum(one), _spectrum(other)
        planes = torch.stack([first.abs().square(), second.abs().square(), (first * second.conj()).real])
        pooled = torch.nn.functional.avg_pool2d(planes[:, None], _CELL, ceil_mode=True, count_include_pad=False)
        cells = pooled[:, 0].numpy().astype(np.float64)
        heard = (cells[1] > cells[1].max() * 10 ** (-_RANGE_DB / 10)) & (cells[0] > 0)
        return cls(*cells[:, heard])

    @property
    def votes(self) -> Cells:
        """Between one a cell, which loud ones would not count in, and as many as its power."""
        votes: Cells = self.other**0.25
        return votes

    def coherent_db(self) -> float | None:
        """The gain by what both have in common, where they have phases in common; None where they have not."""
        coherence = self.common / np.sqrt(self.one * self.other)
        order = np.argsort(coherence)
        votes = np.cumsum(self.votes[order])
        best = coherence[order][np.searchsorted(votes, _BEST * votes[-1])]
        common = self.common.sum()
        # Where the most part is of opposite phase, what they have in common is no measure of a level.
        return float(20 * np.log10(self.other.sum() * best / common)) if best >= _COHERENT and common > 0 else None

    def agreed_db(self, least: float, most: float, *, holds_all: bool) -> float | None:
        """The gain within the bounds that most cells have; None where not enough of them have the same."""
        gains = 10 * np.log10(self.other / self.one)
        possible = (gains >= least - _WIDTH_DB) & (gains <= most + _WIDTH_DB)
        if not possible.any():
            return None
        edges = np.arange(least - 4 * _WIDTH_DB, most + 4 * _WIDTH_DB, _BIN_DB)
        counts, _ = np.histogram(gains[possible], edges, weights=self.votes[possible])
        near = np.arange(-3 * _WIDTH_DB, 3 * _WIDTH_DB + _BIN_DB / 2, _BIN_DB)
        votes = np.convolve(counts, np.exp(-0.5 * np.square(near / _WIDTH_DB)), mode="same")
        found = edges[_peak(votes, last=holds_all)] + _BIN_DB / 2
        agree = possible & (np.abs(gains - found) <= 2 * _WIDTH_DB)
        if self.votes[agree].sum() < _AGREEMENT * self.votes[possible].sum():
            return None
        return float(np.average(gains[agree], weights=self.votes[agree]))


def _peak(votes: Cells, *, last: bool) -> int:
    """The place of the highest peak; of several high ones the `last`, of the cells to which nothing was added."""
    inner = votes[1:-1]
    (peaks,) = np.nonzero((inner >= votes[:-2]) & (inner > votes[2:]) & (inner >= _HIGH * votes.max()))
    return int(peaks[-1]) + 1 if last and peaks.size else int(votes.argmax())


def _spectrum(samples: Mono) -> torch.Tensor:
    signal, window = torch.from_numpy(np.ascontiguousarray(samples)), torch.hann_window(_FFT)
    return torch.stft(signal, _FFT, window=window, pad_mode="constant", return_complex=True)


def _next_to(heard: Mono, other: Mono) -> float:
    """What brings `other` to the level of `heard`."""
    found = _rms(other)
    return 1.0 if found < _SILENCE else min(10 ** (MOST_DB / 20), _rms(heard) / found)


def _rms(samples: Mono) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))
