"""Lengths that files declare, so that one which was cut off is refused instead of taken for a shorter one."""

from __future__ import annotations

import av.container
import av.stream

# Sizes from here on stand for "not known when the header was written": 0xFFFFFFFF of ffmpeg and RF64,
# 0x80000000 of arecord, 0x7FFFFxxx of sox.
_STREAMED_RIFF_SIZE = 0x7FFF0000

_MP4_BOXES = (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"sidx", b"uuid")

# Seconds by which a whole file may fall short of its declared length: encoder delay and padding of a few codec
# frames (at 8 kHz an AAC frame is 0.13 s); for wav and flac what a malformed last block costs.
# Ogg and ADTS declare no length.
_SHORTFALL = {"wav": 0.1, "flac": 0.01, "mp3": 0.3, "mov,mp4,m4a,3gp,3g2,mj2": 0.3, "matroska,webm": 0.3}


def missing_bytes(data: bytes) -> int:
    """Count the bytes that the outermost structure of a wav, mp4 or ogg file declares and that are not there.

    0 for a whole file, for other formats and where nothing is declared. It finds cuts that no duration shows:
    in ogg, in fragmented mp4 and in wav, whose length libav works out from the bytes that are left.
    """
    if data[:4] in (b"RIFF", b"RF64") and data[8:12] == b"WAVE":
        return _missing_from_wav(data)
    if data[4:8] == b"ftyp":
        return _missing_from_mp4(data)
    if data[:4] == b"OggS":
        return _missing_from_ogg(data)
    return 0


def declared_seconds(container: av.container.InputContainer, stream: av.stream.Stream, data: bytes) -> float | None:
    """Return the seconds that the file declares for a stream, or None where libav could only estimate them.

    In matroska the length is that of the longest stream.
    """
    kind = container.format.name
    if kind == "aac" or (kind == "mp3" and not _has_mp3_length(data)):
        return None
    if stream.duration is not None and stream.time_base is not None and kind != "matroska,webm":
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1_000_000


def falls_short(kind: str, declared: float, found: float) -> bool:
    """Return whether `found` seconds are clearly fewer than `declared` ones in libav's container format `kind`."""
    return kind in _SHORTFALL and found + _SHORTFALL[kind] < declared


def _missing_from_wav(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return 0 if size >= _STREAMED_RIFF_SIZE else max(0, at + 8 + size - len(data))
        at += 8 + size + size % 2
    return 0


def _missing_from_mp4(data: bytes) -> int:
    at = 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] in _MP4_BOXES:
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0 means "to the end of the file", other values are nonsense for libav to judge
            return 0
        at += size
    return max(0, at - len(data))


def _missing_from_ogg(data: bytes) -> int:
    at = data.rfind(b"OggS")
    lacing_at = at + 27
    if lacing_at > len(data):
        return lacing_at - len(data)
    lacing = data[lacing_at : lacing_at + data[at + 26]]
    return max(0, lacing_at + data[at + 26] + sum(lacing) - len(data))


def _has_mp3_length(data: bytes) -> bool:
    first_frame = 0
    if data[:3] == b"ID3" and len(data) > 10:
        first_frame = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    head = data[first_frame : first_frame + 256]
    return any(tag in head for tag in (b"Xing", b"Info", b"VBRI"))
