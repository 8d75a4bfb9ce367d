"""Decoding of video files to frames at an even pace."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray
from omnifleet_shared.errors import MediaEmpty
from PIL import Image

from omnifleet_worker.media.limits import DEFAULT_LIMITS, MediaLimits
from omnifleet_worker.media.reader import MediaReader, open_media

# A frame is taken for a moment that it misses by less than this: containers round times to a millisecond.
_ROUNDING_SECONDS = 0.0011

# A film at the limit may last some frames longer: sixty seconds at 23.976 frames a second do.
_SPARE_SECONDS = 0.1

Size = tuple[int, int]
"""Width and height in pixels."""

# Enough for real-time 4K; libav's own default is one per core for every file that is being decoded.
_DECODER_THREADS = 4


@dataclass(frozen=True, eq=False)
class DecodedVideo:
    """Decoded video at an even pace.

    Args:
        frames: uint8 [T, H, W, 3], RGB, upright; frame k is what is shown k / frames_per_second after the start.
        frames_per_second: the requested pace.
        seconds: length of the source that the frames cover; at most the requested `max_seconds`.
    """

    frames: NDArray[np.uint8]
    frames_per_second: float
    seconds: float


@dataclass(frozen=True, eq=False)
class _Shot:
    """A decoded frame and the seconds from the start between which it is shown."""

    frame: VideoFrame
    start: float
    end: float


def decode_video(
    data: bytes,
    *,
    frames_per_second: float,
    max_seconds: float,
    size: Size | None = None,
    field: str = "video",
    limits: MediaLimits = DEFAULT_LIMITS,
) -> DecodedVideo:
    """Decode the pictures of an mp4, mov, mkv or webm file, chosen by their presentation time.

    Any frame rate, constant or variable, comes out at the requested pace, by repeating and leaving out frames.
    Rotation and mirroring are applied; frames with a side over `limits.max_frame_side` pixels are scaled down to it.
    Pixels are taken as square. Only the frames chosen are kept.

    Args:
        data: the whole file.
        frames_per_second: the pace of the frames wanted, > 0.
        max_seconds: how much of the beginning is wanted, > 0; what follows is not decoded.
        size: that every frame is squashed to (bilinear, antialiased, aspect not kept); the source's by default.
        field: the request's field, for errors.
        limits: what is allowed.

    Returns:
        At least one frame, uint8 [T, H, W, 3].

    Raises:
        ValueError: `frames_per_second` or `max_seconds` is not positive.
        MediaEmpty: no bytes, or no frames.
        MediaUnreadable: not video, damaged or cut off.
        MediaTooLarge: more bytes, streams, pixels, memory or decoding time than allowed.
        MediaTooLong: the source is longer than `limits.max_seconds`.
    """
    if not (frames_per_second > 0 and max_seconds > 0):
        raise ValueError("frames_per_second and max_seconds must be positive")
    with open_media(data, kind="video", field=field, limits=limits) as reader:
        _prepare_decoder(reader, limits)
        pictures, seconds = _choose_frames(reader, frames_per_second, max_seconds, size, limits)
    if not pictures:
        raise MediaEmpty("the file holds no frames", field, "Send a file with pictures")
    return DecodedVideo(np.stack(pictures), frames_per_second, seconds)


def _prepare_decoder(reader: MediaReader, limits: MediaLimits) -> None:
    context = cast(VideoCodecContext, reader.stream.codec_context)
    context.thread_type = "AUTO"
    context.thread_count = _DECODER_THREADS
    context.options = {"max_pixels": str(limits.max_pixels)}
    _check_pixels(reader, context.width, context.height, limits)


def _choose_frames(
    reader: MediaReader, pace: float, max_seconds: float, size: Size | None, limits: MediaLimits
) -> tuple[list[NDArray[np.uint8]], float]:
    pictures: list[NDArray[np.uint8]] = []
    seconds = 0.0
    for shot in _shots(reader):
        seconds = min(shot.end, max_seconds)
        reader.guard.check_seconds(shot.end, spare=_SPARE_SECONDS)
        wanted = _moments_before(shot.end, pace, max_seconds) - len(pictures)
        if wanted > 0:
            _check_pixels(reader, shot.frame.width, shot.frame.height, limits)
            shape = pictures[0].shape if pictures and size is None else None
            picture = _squashed(_upright(shot.frame, limits.max_frame_side, shape), size)
            reader.guard.check_decoded_bytes((len(pictures) + wanted) * picture.nbytes)
            pictures.extend([picture] * wanted)
        # Where no more is allowed than is wanted, the rest is looked at too, for the file may not tell its length.
        if shot.end >= max_seconds and max_seconds < limits.max_seconds:
            return pictures, seconds
    reader.check_complete(seconds)
    return pictures, seconds


def _shots(reader: MediaReader) -> Iterator[_Shot]:
    """Pair each frame with the time that it is shown: until the next one begins, the last for its own duration."""
    begin: float | None = None
    before: VideoFrame | None = None
    for frame in reader.frames(VideoFrame):
        if frame.pts is None:
            continue
        begin = frame.time if begin is None else begin
        if before is not None:
            yield _Shot(before, before.time - begin, max(before.time, frame.time) - begin)
        before = frame
    if before is not None and begin is not None:
        yield _Shot(before, before.time - begin, before.time - begin + _duration(before, reader))


def _duration(frame: VideoFrame, reader: MediaReader) -> float:
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return float(1 / (reader.stream.average_rate or 25))


def _moments_before(end: float, pace: float, max_seconds: float) -> int:
    """Count the moments 0, 1/pace, 2/pace… that lie before `end`; at least the first."""
    return max(1, math.ceil((min(end, max_seconds) - _ROUNDING_SECONDS) * pace))


def _check_pixels(reader: MediaReader, width: int, height: int, limits: MediaLimits) -> None:
    if width * height > limits.max_pixels:
        problem = f"its frames are {width} x {height} pixels, and {limits.max_pixels} pixels are allowed"
        raise reader.guard.too_large(problem, "Scale it down")


def _upright(frame: VideoFrame, max_side: int, shape: tuple[int, ...] | None) -> NDArray[np.uint8]:
    """Convert a frame to RGB [H, W, 3], turned and mirrored as the file asks.

    It is scaled to `shape` if that is passed, for a file whose size changes on the way.
    """
    turn = _Turn.of(frame)
    shrink = min(1.0, max_side / max(frame.width, frame.height))
    height, width = max(1, round(frame.height * shrink)), max(1, round(frame.width * shrink))
    if shape is not None:
        height, width = (shape[1], shape[0]) if turn.swaps_sides else (shape[0], shape[1])
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA")
    return np.ascontiguousarray(turn.apply(np.asarray(scaled.to_ndarray(), np.uint8)))


@dataclass(frozen=True)
class _Turn:
    """How a player turns and mirrors the pictures of a file, in whole quarter turns.

    Args:
        swaps_sides: rows become columns first.
        left_right: then left and right are swapped.
        upside_down: and top and bottom.
    """

    swaps_sides: bool = False
    left_right: bool = False
    upside_down: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> _Turn:
        """Read a frame's display matrix, which maps a point (x, y) to (a x + c y, b x + d y)."""
        # PyAV's own types call the container a mapping of strings.
        found = cast(Iterable[SideData], frame.side_data)
        matrix = next((data for data in found if data.type is SideDataType.DISPLAYMATRIX), None)
        if matrix is None:
            return cls()
        a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(swaps_sides=True, left_right=c < 0, upside_down=b < 0)
        return cls(left_right=a < 0, upside_down=d < 0)

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture [H, W, 3]."""
        turned = picture.transpose(1, 0, 2) if self.swaps_sides else picture
        return turned[:: -1 if self.upside_down else 1, :: -1 if self.left_right else 1]


def _squashed(picture: NDArray[np.uint8], size: Size | None) -> NDArray[np.uint8]:
    # Not by libav on the way to RGB: it scales the colours at half the width of the picture, which shows at 224.
    return picture if size is None else np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
