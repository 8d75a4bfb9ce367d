"""Recordings as pictures need them: one channel, and what two of them have not in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaEmpty, MediaNotFound, MediaUnreadable

Span = tuple[float, float]
"""Seconds from one moment of a recording to another."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording.

    Attributes:
        samples: float32 [n, channels].
        rate: samples per second and channel.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def mono(self) -> NDArray[np.float32]:
        """The mean of the channels, float32 [n]."""
        mixed: NDArray[np.float32] = self.samples.mean(axis=1, dtype=np.float32)
        return mixed

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / self.rate


def read_recording(path: Path, field: str) -> Recording:
    """Read a recording in a format that libsndfile knows, such as wav, flac, mp3 and ogg.

    Raises:
        MediaNotFound, MediaUnreadable, MediaEmpty: with the field.
    """
    if not path.is_file():
        raise MediaNotFound(f"there is no file {str(path)!r}", field, "Check the path")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise MediaUnreadable(f"{str(path)!r} cannot be read: {error}", field, "Use wav, flac, mp3 or ogg") from error
    if not len(samples):
        raise MediaEmpty(f"{str(path)!r} holds no samples", field, "Check how the file was made")
    return Recording(np.asarray(samples, np.float32), rate)


def changed_spans(before: Recording, after: Recording) -> tuple[Span, Span] | None:
    """Find between which seconds of each two recordings differ, everything outside being the same, sample by sample.

    Returns:
        The span of the one and of the other; None where they begin and end differently, or are the same.
    """
    if (before.rate, before.samples.shape[1]) != (after.rate, after.samples.shape[1]):
        return None
    shorter = min(len(before.samples), len(after.samples))
    first = _alike(before.samples[:shorter], after.samples[:shorter])
    rest = shorter - first
    last = _alike(before.samples[::-1][:rest], after.samples[::-1][:rest])
    if first + last == 0 or first == len(before.samples) == len(after.samples):
        return None
    ends = [(len(one.samples) - last) / one.rate for one in (before, after)]
    start = first / before.rate
    return (start, ends[0]), (start, ends[1])


def _alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    """How many frames at their beginning are the same."""
    (different,) = np.nonzero((one != other).any(axis=1))
    return int(different[0]) if different.size else len(one)
