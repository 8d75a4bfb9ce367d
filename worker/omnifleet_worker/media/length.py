"""Lengths that files declare, so that one which was cut off is refused instead of taken for a shorter one."""

from __future__ import annotations

from collections.abc import Iterator

import av.container
import av.stream

from omnifleet_worker.media.wav import UNKNOWN_FROM, missing_from_wav

MP4 = "mov,mp4,m4a,3gp,3g2,mj2"
"""libav's name of the mp4 family."""

_MP4_BOXES = (
    *(b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide"),
    *(b"sidx", b"uuid", b"meta", b"styp", b"emsg", b"mfra", b"pdin"),
)

_EBML = b"\x1aE\xdf\xa3"

# Seconds by which a whole file may fall short of its declared length: encoder delay and padding of a few codec
# frames (at 8 kHz an AAC frame is 0.13 s); for wav and flac what a malformed last block costs.
# Ogg, ADTS, AMR and transport streams declare no length.
_SHORTFALL = {
    **dict.fromkeys(("wav", "w64", "aiff"), 0.1),
    "flac": 0.01,
    **dict.fromkeys(("mp3", "caf", MP4, "matroska,webm"), 0.3),
    **dict.fromkeys(("avi", "asf", "flv"), 0.5),
}


def missing_bytes(data: bytes) -> int:
    """Count the bytes that the outermost structure of a file declares and that are not there.

    It is looked at in wav, mp4, ogg, avi, w64 and caf; 0 for a whole file, for other formats and where nothing is
    declared. It finds cuts that no duration shows: in ogg, in fragmented mp4 and in wav, whose length libav works out
    from the bytes that are left.
    """
    if data[:4] in (b"RIFF", b"RF64", b"BW64") and data[8:12] == b"WAVE":
        return missing_from_wav(data)
    if data[4:8] == b"ftyp":
        return _missing_from_mp4(data)
    if data[:4] == b"OggS":
        return _missing_from_ogg(data)
    return max(0, _declared_bytes(data) - len(data))


def _declared_bytes(data: bytes) -> int:
    """The size that avi, w64 and caf files declare in plain numbers; 0 for others and where it was not known."""
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        size = int.from_bytes(data[4:8], "little")
        return 8 + size if size < UNKNOWN_FROM else 0
    if data[:4] == b"riff" and data[24:28] == b"wave":
        return int.from_bytes(data[16:24], "little")
    at = 8 if data[:4] == b"caff" else len(data)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 12], "big", signed=True)
        if size < 0 or data[at : at + 4] == b"data":
            return at + 12 + size
        at += 12 + size
    return 0


def declared_seconds(container: av.container.InputContainer, stream: av.stream.Stream, data: bytes) -> float | None:
    """Return the seconds that the file declares for a stream, or None where libav could only estimate them.

    In matroska the length is that of the longest stream.
    """
    kind = container.format.name
    if kind in ("aac", "mpegts", "amr") or (kind == "mp3" and not _mp3_tag_counts(data)):
        return None
    if stream.duration is not None and stream.time_base is not None and kind != "matroska,webm":
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / 1_000_000


def falls_short(kind: str, declared: float, found: float) -> bool:
    """Whether `found` seconds are clearly fewer than `declared` ones in libav's container format `kind`."""
    return kind in _SHORTFALL and found + _SHORTFALL[kind] < declared


def has_fragments(data: bytes) -> bool:
    """Whether an mp4 file comes in fragments, as recorders and streams write it."""
    return any(name == b"moof" for name, _ in _mp4_boxes(data))


def count_joined(data: bytes) -> int:
    """Count the mp4, webm or mkv files that are joined in one, which libav does not read to the end; else 1."""
    if data[4:8] == b"ftyp":
        return max(1, sum(name == b"moov" for name, _ in _mp4_boxes(data)))
    if data[:4] != _EBML:
        return 1
    # Only what also names the format in its first bytes is the head of a file; four bytes may be anything.
    heads = [at for at in _all_of(data, _EBML) if any(name in data[at : at + 64] for name in (b"webm", b"matroska"))]
    return max(1, len(heads))


def _all_of(data: bytes, magic: bytes) -> Iterator[int]:
    at = data.find(magic)
    while at >= 0:
        yield at
        at = data.find(magic, at + 4)


def _missing_from_mp4(data: bytes) -> int:
    return max(0, max((end for _, end in _mp4_boxes(data)), default=0) - len(data))


def _mp4_boxes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield name and end of each outermost box, up to one that runs to the end of the file or is nonsense."""
    at = 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] in _MP4_BOXES:
        name, size = data[at + 4 : at + 8], int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        if size < 8:  # 0 means "to the end of the file", other values are nonsense for libav to judge
            return
        at += size
        yield name, at


def _missing_from_ogg(data: bytes) -> int:
    at = data.rfind(b"OggS")
    lacing_at = at + 27
    if lacing_at > len(data):
        return lacing_at - len(data)
    lacing = data[lacing_at : lacing_at + data[at + 26]]
    return max(0, lacing_at + data[at + 26] + sum(lacing) - len(data))


def _mp3_tag_counts(data: bytes) -> bool:
    """Whether the length in an mp3 file's tag is to be believed: it is there, and no count of bytes says otherwise.

    Joined and edited files keep the tag of what they were; where all bytes that it counts are there, nothing is cut.
    """
    first_frame = 0
    if data[:3] == b"ID3" and len(data) > 10:
        first_frame = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    head = data[first_frame : first_frame + 256]
    if (at := head.find(b"VBRI")) >= 0:
        return int.from_bytes(head[at + 10 : at + 14], "big") > len(data) - first_frame
    at = max(head.find(b"Xing"), head.find(b"Info"))
    if at < 0:
        return False
    flags = int.from_bytes(head[at + 4 : at + 8], "big")
    if not flags & 1 or not flags & 2:
        return bool(flags & 1)
    return int.from_bytes(head[at + 12 : at + 16], "big") > len(data) - first_frame
