"""Reading of uncompressed wav files: plain numbers need no decoder, and their headers' sizes are often wrong.

What is compressed inside a wav file (A-law, ADPCM, mp3) is left to libav.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaUnreadable

BLOCK_FRAMES = 65_536
"""Frames that are converted at once."""

UNKNOWN_FROM = 0x7FFF0000
"""Sizes from here on stand for "not known when the header was written": of sox (0x7FFFxxxx), arecord (0x80000000),
ffmpeg and RF64 (0xFFFFFFFF)."""
_UNKNOWN = (0, 2_000_000_000)

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_KINDS = {(_PCM, 1): "u8", (_PCM, 2): "s16", (_PCM, 3): "s24", (_PCM, 4): "s32", (_FLOAT, 4): "f32", (_FLOAT, 8): "f64"}
_TYPES = {"u8": "<u1", "s16": "<i2", "s32": "<i4", "f32": "<f4", "f64": "<f8"}
_FULL_SCALE = {"u8": 2**7, "s16": 2**15, "s24": 2**31, "s32": 2**31, "f32": 1, "f64": 1}

# Names of the places in the order of a channel mask's bits.
_PLACES = ("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR", "TC", "TFL", "TFC", "TFR", "TBL")


@dataclass(frozen=True)
class _Form:
    """What a `fmt ` chunk tells."""

    kind: str
    channels: int
    rate: int
    block: int
    places: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class PcmWav:
    """An uncompressed wav file, or several of the same form joined.

    Args:
        rate: samples per second and channel.
        channels: number of channels.
        places: where the channels belong, such as `("FL", "FR")`; None where the file does not say.
        kind: sample format.
        parts: bytes of the samples, each a whole number of frames.
    """

    rate: int
    channels: int
    places: tuple[str, ...] | None
    kind: str
    parts: Sequence[memoryview]

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return sum(len(part) for part in self.parts) / self._frame_bytes / self.rate

    @property
    def _frame_bytes(self) -> int:
        return self.channels * (3 if self.kind == "s24" else np.dtype(_TYPES[self.kind]).itemsize)

    def blocks(self, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Yield the samples [n, channels] in blocks, full scale ±1."""
        frame = self._frame_bytes
        for part in self.parts:
            for start in range(0, len(part), frame * BLOCK_FRAMES):
                values = _values(part[start : start + frame * BLOCK_FRAMES], self.kind)
                with np.errstate(over="ignore", invalid="ignore"):  # what is no number is the caller's to refuse
                    scaled = values.astype(dtype) / dtype.type(_FULL_SCALE[self.kind])
                yield (scaled - dtype.type(1) if self.kind == "u8" else scaled).reshape(-1, self.channels)


def _values(raw: memoryview, kind: str) -> NDArray[Any]:
    if kind != "s24":
        return np.frombuffer(raw, _TYPES[kind])
    # In the upper three bytes of 32 bits, so that the sign is in its place.
    wide = np.zeros((len(raw) // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
    return wide.view("<i4")[:, 0]


def read_wav(data: bytes, field: str) -> PcmWav | None:
    """Read the samples of a wav file, and of all that are joined to it; None where they are no plain numbers.

    Sizes that encoders are known to write before they know the length are taken as "to the end"; a frame that was
    cut in half is left out.

    Raises:
        MediaUnreadable: the file was cut off, or files of different forms are joined.
    """
    if not _is_wav(data, 0):
        return None
    files = [_read_file(memoryview(data)[start:stop], field) for start, stop in _files(data)]
    whole = [file for file in files if file is not None]
    if len(files) > 1 and (len(whole) < len(files) or len({form for form, _ in whole}) > 1):
        problem = f"{len(files)} wav files are joined in it, which are not all of one uncompressed form"
        raise MediaUnreadable(problem, field, "Send them one by one, or convert them to one form first")
    if not whole:
        return None
    form = whole[0][0]
    return PcmWav(form.rate, form.channels, form.places, form.kind, [part for _, parts in whole for part in parts])


def missing_from_wav(data: bytes) -> int:
    """Count the bytes of the first data chunk that a wav file declares and does not hold; 0 where none is missing."""
    view = memoryview(data)
    for name, start, size in _chunks(view):
        if name == b"data":
            return max(0, _end_of_data(view, start, size) - len(view))
    return 0


def _is_wav(data: bytes | memoryview, at: int) -> bool:
    return bytes(data[at : at + 4]) in (b"RIFF", b"RF64", b"BW64") and bytes(data[at + 8 : at + 12]) == b"WAVE"


def _files(data: bytes) -> Iterator[tuple[int, int]]:
    """Find where each of the joined files begins and ends. Samples do not look like the twelve bytes of a header."""
    starts, at = [0], 12
    while (found := data.find(b"WAVE", at)) >= 0:
        at = found + 4
        if found - 8 >= starts[-1] + 12 and _is_wav(data, found - 8):
            starts.append(found - 8)
    yield from zip(starts, [*starts[1:], len(data)], strict=True)


def _read_file(view: memoryview, field: str) -> tuple[_Form, list[memoryview]] | None:
    form: _Form | None = None
    parts: list[memoryview] = []
    for name, start, size in _chunks(view):
        if name == b"fmt ":
            form = _form(view[start : start + size])
        if name == b"data":
            if form is None:
                return None
            end = _end_of_data(view, start, size)
            if end > len(view):
                raise _cut_off(end, len(view), field)
            parts.append(view[start : end - (end - start) % form.block])
    return (form, parts) if form is not None and parts else None


def _chunks(view: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and declared size of each chunk, up to one that has no end in the file."""
    at, wide = 12, None
    while at + 8 <= len(view):
        name, size = bytes(view[at : at + 4]), int.from_bytes(view[at + 4 : at + 8], "little")
        if name == b"ds64" and at + 24 <= len(view):
            wide = int.from_bytes(view[at + 16 : at + 24], "little")
        if name == b"data" and size == 0xFFFFFFFF and wide is not None:
            size = wide
        if not name.isascii() or not name.strip().isalnum():
            return
        yield name, at + 8, size
        at = (_end_of_data(view, at + 8, size) if name == b"data" else at + 8 + size) + size % 2


def _end_of_data(view: memoryview, start: int, size: int) -> int:
    """Where a data chunk ends by its declared size, or by the file's end where the size is none."""
    rest = len(view) - start
    unknown = size in _UNKNOWN or size >= UNKNOWN_FROM
    # The size of the whole file, or of all but the first eight bytes of it, was written in place of the data's.
    unknown |= rest < size and size in (len(view), len(view) - 8)
    if size == 0 and _is_chunk(view, start):
        unknown = False
    return len(view) if unknown else start + size


def _is_chunk(view: memoryview, at: int) -> bool:
    """Whether a chunk that ends with the file or before begins here: then an empty data chunk before it is empty."""
    name, size = bytes(view[at : at + 4]), int.from_bytes(view[at + 4 : at + 8], "little")
    return len(name) == 4 and name.strip().isalnum() and name.isascii() and at + 8 + size <= len(view)


def _form(chunk: memoryview) -> _Form | None:
    if len(chunk) < 16:
        return None
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", chunk[:16])
    mask = 0
    if tag == _EXTENSIBLE and len(chunk) >= 40:
        mask, tag = struct.unpack("<IH", chunk[20:26])
    # Samples of fewer bits than their bytes hold lie in the upper ones.
    if not channels or block % channels or bits > block // channels * 8:
        return None
    kind = _KINDS.get((tag, block // channels))
    return None if kind is None else _Form(kind, channels, rate, block, _places(mask, channels))


def _places(mask: int, channels: int) -> tuple[str, ...] | None:
    named = tuple(name for bit, name in enumerate(_PLACES) if mask >> bit & 1)
    return named[:channels] if len(named) >= channels else None


def _cut_off(declared: int, found: int, field: str) -> MediaUnreadable:
    problem = f"the file is cut off: it declares {declared} bytes and holds {found}"
    details = {"declared_bytes": declared, "found_bytes": found}
    return MediaUnreadable(problem, field, "Export the file again and send it whole", details)
