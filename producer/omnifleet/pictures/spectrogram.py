"""Spectrograms of recordings, one below the other on one scale, with spans marked: a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .recordings import Recording, Span

WIDTH, HEIGHT = 1200, 256
"""Pixels of each spectrogram; the highest frequency is on top."""
LEFT, TOP, BELOW, MARGIN = 64, 34, 30, 12
"""Pixels beside, above and below a spectrogram, and at the picture's ends."""
RANGE_DB = 80.0
"""From the loudest of all that is shown down to black."""
_WINDOW_SECONDS = 0.046
_FRAMES_A_COLUMN = 4
_COLUMNS_AT_ONCE = 128
_COLOURS = (
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)
"""From quiet to loud, ever brighter, so that grey prints and all eyes read it: points of matplotlib's inferno."""
_BACKGROUND, _INK, _MARK = (250, 250, 250), (30, 30, 30), (0, 150, 200)
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1200, 3600)
_PITCHES = (100, 500, 1000, 2000, 4000, 8000, 16_000)

Levels = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Panel:
    """One spectrogram of a picture.

    Attributes:
        title: what stands above it.
        recording: what it shows.
        spans: parts of it that are marked and numbered.
    """

    title: str
    recording: Recording
    spans: Sequence[Span] = ()


def draw_spectrograms(panels: Sequence[Panel]) -> bytes:
    """Draw recordings below one another on the same scales of time, frequency and level; returns a PNG.

    Time goes to the right, frequency upwards on the mel scale to half the higher sample rate.
    """
    seconds = max(panel.recording.seconds for panel in panels)
    highest = max(panel.recording.rate for panel in panels) / 2
    levels = [_levels(panel.recording, seconds, highest) for panel in panels]
    loudest = max(float(one.max()) for one in levels)
    size = (LEFT + WIDTH + MARGIN, len(panels) * (TOP + HEIGHT + BELOW) + MARGIN)
    picture = Image.new("RGB", size, _BACKGROUND)
    for number, (panel, shown) in enumerate(zip(panels, levels, strict=True)):
        top = number * (TOP + HEIGHT + BELOW) + TOP
        picture.paste(Image.fromarray(_colours(shown, loudest)), (LEFT, top))
        _Axes(picture, top, seconds, highest).draw(panel)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _levels(recording: Recording, seconds: float, highest: float) -> Levels:
    """Decibels [HEIGHT, columns], the highest frequency first; as many columns as the recording lasts."""
    size = 2 ** round(math.log2(_WINDOW_SECONDS * recording.rate))
    columns = max(1, round(WIDTH * recording.seconds / seconds))
    padded = np.pad(recording.mono, size // 2)
    frames = np.linspace(0, len(recording.samples), columns * _FRAMES_A_COLUMN, endpoint=False).astype(np.int64)
    rows = _first_bins(size, recording.rate, highest)
    parts = [
        _power(padded, part, size, rows)
        for part in np.array_split(frames, max(1, columns // _COLUMNS_AT_ONCE) * _FRAMES_A_COLUMN)
    ]
    power = np.concatenate(parts)
    whole = power.reshape(columns, _FRAMES_A_COLUMN, HEIGHT).mean(axis=1)
    levels: Levels = 10 * np.log10(np.maximum(whole, 1e-12)).T[::-1]
    return levels


def _power(padded: NDArray[np.float32], starts: NDArray[np.int64], size: int, rows: NDArray[np.int64]) -> Levels:
    """Power [frames, HEIGHT] of the frames that begin there; 0 above half the sample rate."""
    window = np.hanning(size)
    spectrum = np.abs(np.fft.rfft(padded[starts[:, None] + np.arange(size)] * window, axis=1)) ** 2
    spectrum = np.pad(spectrum, ((0, 0), (0, 1)))  # whatever lies beyond
    power: Levels = np.maximum.reduceat(spectrum, np.minimum(rows, spectrum.shape[1] - 1), axis=1)
    power /= (window.sum() / 2) ** 2
    return power


def _first_bins(size: int, rate: int, highest: float) -> NDArray[np.int64]:
    """The first frequency bin of each row, from the lowest row up."""
    edges = _hertz(np.linspace(0, _mel(highest), HEIGHT + 1)[:-1])
    return np.round(edges * size / rate).astype(np.int64)


def _mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def _hertz(mel: Levels) -> Levels:
    hertz: Levels = 700 * (10 ** (mel / 2595) - 1)
    return hertz


def _colours(levels: Levels, loudest: float) -> NDArray[np.uint8]:
    shades = np.clip((levels - loudest) / RANGE_DB + 1, 0, 1) * (len(_COLOURS) - 1)
    places = np.arange(len(_COLOURS))
    channels = [np.interp(shades, places, channel) for channel in np.array(_COLOURS).T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


class _Axes:
    """What stands around one spectrogram, and its marks."""

    def __init__(self, picture: Image.Image, top: int, seconds: float, highest: float) -> None:
        self._pen = ImageDraw.Draw(picture)
        self._font = ImageFont.load_default(13)
        self._top, self._bottom = top, top + HEIGHT
        self._seconds = seconds
        self._highest = highest

    def draw(self, panel: Panel) -> None:
        self._pen.text((LEFT, self._top - 30), panel.title, _INK, self._font)
        self._pen.rectangle((LEFT - 1, self._top - 1, LEFT + WIDTH, self._bottom), outline=_INK)
        self._draw_times()
        self._draw_pitches()
        for number, span in enumerate(panel.spans, 1):
            self._mark(number, span)

    def _draw_times(self) -> None:
        step = next((tick for tick in _TICKS if self._seconds / tick <= 12), _TICKS[-1])
        for number in range(int(self._seconds / step) + 1):
            x = self._x(number * step)
            self._pen.line((x, self._bottom, x, self._bottom + 4), _INK)
            self._pen.text((x, self._bottom + 6), f"{number * step:g} s", _INK, self._font, anchor="ma")

    def _draw_pitches(self) -> None:
        for hertz in (pitch for pitch in _PITCHES if pitch < self._highest):
            y = self._bottom - round(HEIGHT * _mel(hertz) / _mel(self._highest))
            self._pen.line((LEFT - 5, y, LEFT - 1, y), _INK)
            words = f"{hertz} Hz" if hertz < 1000 else f"{hertz // 1000} kHz"
            self._pen.text((LEFT - 8, y), words, _INK, self._font, anchor="rm")

    def _mark(self, number: int, span: Span) -> None:
        """A bar above the span with its number, and a line down at each end of it."""
        start, end = self._x(span[0]), max(self._x(span[0]) + 1, self._x(span[1]))
        self._pen.rectangle((start, self._top - 12, end, self._top - 4), fill=_MARK)
        for x in (start, end):
            self._pen.line((x, self._top - 4, x, self._bottom), _MARK, width=1)
        self._pen.text((start, self._top - 13), str(number), _INK, self._font, anchor="rb")

    def _x(self, seconds: float) -> int:
        return LEFT + min(WIDTH - 1, round(WIDTH * seconds / self._seconds))
