"""What decoding a file takes of memory, told from its header: nothing is decoded."""

from __future__ import annotations

import math
from typing import cast

from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext

from omnifleet_worker.media.limits import DEFAULT_LIMITS, LimitGuard, MediaLimits
from omnifleet_worker.media.reader import MediaReader, open_media
from omnifleet_worker.media.wav import read_wav

_LEAST_BITRATES = {"mp3": 8_000}
"""Bits a second that a format takes at least."""
_LEAST_BITRATE = 500
"""Of any other: Opus sends a byte for 20 ms of silence, beside what the container takes."""


def measure_audio(
    data: bytes,
    *,
    field: str = "audio",
    limits: MediaLimits = DEFAULT_LIMITS,
    exact: bool = False,
    mono_rate: int | None = None,
    track: int | None = None,
) -> int:
    """Return the bytes of the samples that `decode_audio` makes of the file.

    A file that declares no length counts as the longest of its size, and none as more than `limits.max_decoded_bytes`.

    Raises:
        MediaError: as `decode_audio`, for what is known before decoding.
    """
    LimitGuard(field, limits).check_bytes(data, "Send a file with sound")
    wav = read_wav(data, field) if not track else None
    if wav is not None:
        seconds, rate, channels = wav.seconds, wav.rate, wav.channels
    else:
        with open_media(data, kind="audio", field=field, limits=limits, track=track) as reader:
            context = cast(AudioCodecContext, reader.stream.codec_context)
            seconds, rate, channels = _seconds(reader, data, limits), context.sample_rate, context.channels
    if mono_rate is not None:
        rate, channels = mono_rate, 1
    size = math.ceil(min(seconds, limits.max_seconds) * rate) * channels * (8 if exact else 4)
    # A stream may tell its form only once it is decoded.
    return min(size, limits.max_decoded_bytes) if size else limits.max_decoded_bytes


def measure_video(
    data: bytes, *, frames_per_second: float, field: str = "video", limits: MediaLimits = DEFAULT_LIMITS
) -> int:
    """Return the bytes of the frames that `decode_video` makes of the whole file, at its own size.

    A file that declares no length counts as the longest of its size, and none as more than `limits.max_decoded_bytes`.

    Raises:
        MediaError: as `decode_video`, for what is known before decoding.
    """
    with open_media(data, kind="video", field=field, limits=limits) as reader:
        context = cast(VideoCodecContext, reader.stream.codec_context)
        width, height = context.width, context.height
        frames = max(1, math.ceil(_seconds(reader, data, limits) * frames_per_second))
    shrink = min(1.0, limits.max_frame_side / max(1, width, height))
    size = frames * 3 * math.ceil(width * shrink) * math.ceil(height * shrink)
    return min(size, limits.max_decoded_bytes) if size else limits.max_decoded_bytes


def _seconds(reader: MediaReader, data: bytes, limits: MediaLimits) -> float:
    if reader.declared_seconds is not None:
        return reader.declared_seconds
    return min(limits.max_seconds, 8 * len(data) / _LEAST_BITRATES.get(reader.format, _LEAST_BITRATE))
