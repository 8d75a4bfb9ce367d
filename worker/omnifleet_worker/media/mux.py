"""Muxing of new sound with a video's pictures: the pictures are copied as they are, the sound is encoded."""

from __future__ import annotations

import heapq
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaError, MediaUnreadable
from omnifleet_shared.schema.results import VideoFormat

from omnifleet_worker.media.limits import DEFAULT_LIMITS, MediaLimits
from omnifleet_worker.media.reader import MediaReader, open_media

_WEBM_CODECS = ("vp8", "vp9", "av1", "libdav1d")
_ENCODERS = {"mp4": ("aac", None), "mov": ("aac", None), "webm": ("libopus", 48_000)}
"""Encoder of the sound, and its rate where it does not take any."""

_BLOCK_FRAMES = 65_536


@dataclass(frozen=True, eq=False)
class MuxedVideo:
    """A muxed video file.

    Args:
        data: the whole file.
        format: of the container.
        seconds: length of the pictures or of the sound, whichever is longer.
    """

    data: bytes
    format: VideoFormat
    seconds: float


def mux(
    video: bytes,
    pcm: NDArray[np.int16],
    sample_rate: int,
    *,
    field: str = "video",
    limits: MediaLimits = DEFAULT_LIMITS,
) -> MuxedVideo:
    """Put sound under the pictures of a video, from its first picture on.

    Every packet of the pictures is copied, and with it their rotation; other streams are left out. Pictures and
    sound keep their own lengths. webm stays webm (with Opus); mp4 and mov become mp4 with AAC, and so does mkv
    with pictures that webm cannot hold; ProRes, which mp4 cannot hold, becomes mov.

    Args:
        video: a whole mp4, mov, mkv or webm file.
        pcm: int16 [n, channels], one or two channels.
        sample_rate: samples per second and channel; any that AAC takes, such as 44,100.
        field: the request's field, for errors.
        limits: what is allowed of the video.

    Raises:
        ValueError: `pcm` is not int16 [n, 1 or 2].
        MediaEmpty, MediaUnreadable, MediaTooLarge, MediaTooLong: as `decode_video`, but for its frames.
        MediaUnreadable: besides, the pictures cannot be put into a file of the formats that are written.
    """
    if pcm.dtype != np.int16 or pcm.ndim != 2 or pcm.shape[1] not in (1, 2):
        raise ValueError(f"pcm must be int16 [n, 1 or 2], not {pcm.dtype} {list(pcm.shape)}")
    target = io.BytesIO()
    with open_media(video, kind="video", field=field, limits=limits) as reader:
        form = _copy(reader, pcm, sample_rate, target)
    return MuxedVideo(target.getvalue(), form, _length(target))


def why_not_muxed(video: bytes, *, field: str = "video", limits: MediaLimits = DEFAULT_LIMITS) -> str | None:
    """Say why a video's pictures cannot be put into a new file, before anything is made for it; None if they can."""
    try:
        with open_media(video, kind="video", field=field, limits=limits) as reader:
            _copy(reader, np.zeros((1_024, 2), np.int16), 44_100, _Nowhere())
    except MediaError as error:
        return str(error)
    return None


class _Nowhere(io.RawIOBase):
    """A file that is written to, and kept nowhere."""

    def __init__(self) -> None:
        self._at = self._end = 0

    def write(self, data: Any, /) -> int:
        self._at += len(data)
        self._end = max(self._end, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset + {0: 0, 1: self._at, 2: self._end}[whence & 3]
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True


def _copy(reader: MediaReader, pcm: NDArray[np.int16], rate: int, target: io.IOBase) -> VideoFormat:
    form = _choose_format(reader)
    try:
        _write(reader, form, pcm, rate, target)
    except (av.FFmpegError, ValueError) as error:
        problem = f"its pictures cannot be put into {form}: {error}"
        raise MediaUnreadable(problem, reader.guard.field, "Send it as mp4 with H.264, exported anew") from error
    return form


def _choose_format(reader: MediaReader) -> VideoFormat:
    codec = reader.stream.codec_context.name
    if reader.format == "matroska,webm" and codec in _WEBM_CODECS:
        return "webm"
    return "mov" if codec == "prores" else "mp4"


def _write(reader: MediaReader, form: VideoFormat, pcm: NDArray[np.int16], rate: int, target: io.IOBase) -> None:
    with av.open(target, "w", format=form) as out:
        # Opaque: without an encoder, which there is none of for pictures of the decoders libdav1d and prores.
        pictures = cast(VideoStream, out.add_stream_from_template(reader.stream, opaque=True))
        encoder, only_rate = _ENCODERS[form]
        sound = cast(AudioStream, out.add_stream(encoder, only_rate or rate, layout=_layout(pcm)))
        # In the order of their times, as players read both at once.
        for packet in heapq.merge(_copied(reader, pictures), _encoded(sound, pcm, rate), key=_begin):
            out.mux(packet)


def _length(file: io.BytesIO) -> float:
    file.seek(0)
    with av.open(file, "r") as container:
        return (container.duration or 0) / 1_000_000


def _begin(packet: av.Packet) -> float:
    moment = packet.dts if packet.dts is not None else packet.pts
    return float((moment or 0) * packet.time_base)


def _copied(reader: MediaReader, pictures: VideoStream) -> Iterator[av.Packet]:
    """Shift the packets of the pictures so that the first picture is shown at 0."""
    start = reader.stream.start_time or 0
    for packet in _shown(reader, start):
        packet.pts = None if packet.pts is None else packet.pts - start
        packet.dts = None if packet.dts is None else packet.dts - start
        packet.stream = pictures
        yield packet


def _shown(reader: MediaReader, start: int) -> Iterator[av.Packet]:
    """Leave out the packets after the last picture that is shown. Raises ValueError where a part in between is hidden.

    A lead-in, which the first picture is decoded from, is not seen in the copy either: it lies before 0. A part in the
    middle would be, as nothing but decoding leaves it out.
    """
    end = start + (reader.stream.duration or 0)
    hidden: list[av.Packet] = []
    for packet in reader.packets():
        if packet.is_discard and packet.pts is not None and packet.pts >= start:
            if packet.pts < end:
                raise ValueError("its edit list leaves out a part in the middle")
            hidden.append(packet)
            continue
        yield from hidden
        hidden.clear()
        yield packet


def _encoded(sound: AudioStream, pcm: NDArray[np.int16], rate: int) -> Iterator[av.Packet]:
    for start in range(0, len(pcm), _BLOCK_FRAMES):
        block = np.ascontiguousarray(pcm[start : start + _BLOCK_FRAMES]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout=_layout(pcm))
        frame.sample_rate, frame.pts = rate, start
        yield from sound.encode(frame)
    yield from sound.encode(None)


def _layout(pcm: NDArray[np.int16]) -> str:
    return "mono" if pcm.shape[1] == 1 else "stereo"
