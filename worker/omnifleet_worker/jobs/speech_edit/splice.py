"""Splices new material into a recording; every sample outside the edited spans stays the source's own.

Works on float64, which holds the samples of every integer and float format exactly, at the source's rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...media.signal import crossfade

FADE_SECONDS = 0.02
"""Length of a crossfade at each end of an edited span."""
SEEK_SECONDS = 0.01
"""How far a span is widened at most to begin and end at a zero crossing."""

Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Span:
    """Samples `start` to `end` (exclusive) of the source that are edited, the first and last of them crossfaded.

    Args:
        start: first sample.
        end: one past the last.
        fade_in: samples of the crossfade from the source; 0 at the source's beginning.
        fade_out: samples of the crossfade back; 0 at the source's end.
    """

    start: int
    end: int
    fade_in: int
    fade_out: int

    @property
    def gap(self) -> tuple[int, int]:
        """The samples between the two crossfades, where nothing of the source is left."""
        return self.start + self.fade_in, self.end - self.fade_out


@dataclass(frozen=True, eq=False)
class Patch:
    """A span and what takes its place.

    Args:
        span: of the source.
        material: float64 [channels, n], crossfades included, so n is at least their sum; None to cut the span out.
    """

    span: Span
    material: Samples | None


def widen(source: Samples, rate: int, gap: tuple[int, int], room: tuple[int, int]) -> Span:
    """Return the span around a gap, wide enough for its crossfades and aligned to zero crossings.

    Args:
        source: float64 [channels, n].
        rate: samples per second and channel.
        gap: first sample that must go, and one past the last; equal where something is inserted.
        room: samples between which the span must lie, the gap within them.
    """
    fade, reach = round(FADE_SECONDS * rate), round(SEEK_SECONDS * rate)
    start, end = max(room[0], gap[0] - fade), min(room[1], gap[1] + fade)
    mono = source.mean(axis=0)
    start -= _to_crossing(mono[max(room[0], start - reach) : start + 1][::-1])
    end += _to_crossing(mono[max(0, end - 1) : min(room[1], end + reach)])
    inside = (start > 0, end < source.shape[1])
    longest = min(fade, (end - start) // max(1, sum(inside)))
    return Span(start, end, fade_in=longest * inside[0], fade_out=longest * inside[1])


def _to_crossing(samples: Samples) -> int:
    """Steps from between the first two of the samples to the nearest change of sign; 0 where there is none."""
    (changes,) = np.nonzero(np.signbit(samples[1:]) != np.signbit(samples[:-1]))
    return int(changes[0]) if changes.size else 0


def splice(source: Samples, patches: Sequence[Patch]) -> tuple[Samples, list[tuple[int, int]]]:
    """Put patches into the source.

    Args:
        source: float64 [channels, n].
        patches: in order, their spans apart or touching.

    Returns:
        The result, float64 [channels, m], and for each patch its first sample and one past its last in the result.
        Before, between and after those, the result's samples are the source's own.
    """
    pieces: list[Samples] = []
    positions: list[tuple[int, int]] = []
    taken = length = 0
    for patch in patches:
        blend = _blend(source, patch)
        kept = source[:, taken : patch.span.start]
        pieces += [kept, blend]
        begin = length + kept.shape[1]
        length, taken = begin + blend.shape[1], patch.span.end
        positions.append((begin, length))
    return np.concatenate([*pieces, source[:, taken:]], axis=1), positions


def _blend(source: Samples, patch: Patch) -> Samples:
    span = patch.span
    if patch.material is None:
        fade = min(span.fade_in, span.fade_out)
        return crossfade(source[:, span.start : span.start + fade], source[:, span.end - fade : span.end])
    made, last = patch.material, patch.material.shape[1] - span.fade_out
    head = crossfade(source[:, span.start : span.start + span.fade_in], made[:, : span.fade_in])
    tail = crossfade(made[:, last:], source[:, span.end - span.fade_out : span.end])
    return np.concatenate([head, made[:, span.fade_in : last], tail], axis=1)
