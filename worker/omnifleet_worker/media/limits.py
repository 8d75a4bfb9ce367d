"""Limits on the size, length and decoding cost of one media file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Limits on one file; each is enforced before the memory or time that it guards is spent."""

    max_bytes: int = 512 * 1024**2
    """Size of the file, in bytes. Default 512 MiB."""

    max_seconds: float = 1800.0
    """Length of the audio or video, in seconds. Default 30 minutes."""

    max_streams: int = 32
    """Streams in the container: audio, video, subtitles, cover art and data together. Default 32."""

    max_channels: int = 16
    """Channels of the audio stream. Default 16."""

    min_sample_rate: int = 4_000
    """Samples per second and channel; below it, resampling blows a small file up. Default 4 kHz."""

    max_sample_rate: int = 384_000
    """Samples per second and channel. Default 384 kHz."""

    max_pixels: int = 7680 * 4320
    """Width times height of a video frame as stored, in pixels. Default 8K UHD, 33,177,600."""

    max_frame_side: int = 1280
    """Longer side of a decoded frame, in pixels; larger frames are scaled down to it. Default 1280."""

    max_decoded_bytes: int = 1024**3
    """Samples (float32) or frames (RGB) of one file in memory, in bytes; while they are joined into one
    array there are two copies. Default 1 GiB."""

    max_decode_seconds: float = 60.0
    """Wall time for opening and decoding one file, in seconds. Default 60 s."""


DEFAULT_LIMITS = MediaLimits()
