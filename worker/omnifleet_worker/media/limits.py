"""Limits on the size, length and decoding cost of one media file."""

from __future__ import annotations

import time
from dataclasses import dataclass

from omnifleet_shared.errors import MediaEmpty, MediaTooLarge, MediaTooLong, MediaUnreadable


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

# An encoder adds up to some frames of its own before and after the sound, and not every format can tell which they
# are: 300 s of mp3 without a tag are decoded as 300.05 s.
PADDING_SAMPLES = 4_608


class LimitGuard:
    """Enforces the limits on one file, from now on: raises the error that names the field and the limit.

    Args:
        field: the request's field, for errors.
        limits: what is allowed.
    """

    def __init__(self, field: str, limits: MediaLimits) -> None:
        self.field = field
        self.limits = limits
        self.deadline = time.monotonic() + limits.max_decode_seconds

    @property
    def timed_out(self) -> bool:
        """Whether the time for this file is over."""
        return time.monotonic() > self.deadline

    def check_bytes(self, data: bytes, remedy: str) -> None:
        """Raise MediaEmpty for no bytes, with the remedy, or MediaTooLarge for too many."""
        if not data:
            raise MediaEmpty("the file holds no bytes", self.field, remedy)
        if len(data) > self.limits.max_bytes:
            problem = f"the file holds {len(data)} bytes, and {self.limits.max_bytes} are allowed"
            raise MediaTooLarge(problem, self.field, "Send a shorter part of it, or compress it")

    def check_time(self) -> None:
        """Raise MediaTooLarge once decoding has taken more time than is allowed."""
        if self.timed_out:
            raise self.too_slow()

    def check_seconds(self, seconds: float, spare: float = 0.0) -> None:
        """Raise MediaTooLong if `seconds` are more than the limits allow, and more than `spare` above them."""
        if seconds > self.limits.max_seconds + spare:
            raise MediaTooLong(
                f"it is at least {seconds:.1f} seconds long, and {self.limits.max_seconds:g} seconds are allowed",
                self.field,
                "Send a shorter part of it",
                {"seconds": seconds, "max_seconds": self.limits.max_seconds},
            )

    def check_decoded_bytes(self, count: int) -> None:
        """Raise MediaTooLarge if `count` bytes of samples or frames are more than the limits allow."""
        if count > self.limits.max_decoded_bytes:
            raise self.too_large(
                f"decoded it fills more than {self.limits.max_decoded_bytes} bytes",
                "Send a shorter part of it, fewer channels or a lower rate",
            )

    def check_shape(self, channels: int, rate: int) -> None:
        """Raise MediaTooLarge for too many channels or samples per second, MediaUnreadable for too few."""
        limits = self.limits
        if channels > limits.max_channels:
            problem = f"it has {channels} channels, and {limits.max_channels} are allowed"
            raise self.too_large(problem, "Mix it down to fewer channels")
        if rate > limits.max_sample_rate:
            problem = f"its sample rate is {rate} Hz, and {limits.max_sample_rate} Hz are allowed"
            raise self.too_large(problem, "Resample it to 48000 Hz")
        if channels < 1 or rate < limits.min_sample_rate:
            raise self.unreadable(f"it has {channels} channels at {rate} Hz, below {limits.min_sample_rate} Hz")

    def unreadable(self, problem: str, **details: float) -> MediaUnreadable:
        """Build the error for a file that is damaged or not of the kind requested."""
        return MediaUnreadable(problem, self.field, "Export the file again and send it whole", details)

    def too_large(self, problem: str, remedy: str) -> MediaTooLarge:
        """Build the error for a file over one of the limits."""
        return MediaTooLarge(problem, self.field, remedy)

    def too_slow(self) -> MediaTooLarge:
        """Build the error for a file that takes too long."""
        problem = f"decoding it takes more than {self.limits.max_decode_seconds:g} seconds"
        return self.too_large(problem, "Send a shorter part of it")
