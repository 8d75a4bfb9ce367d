"""What each audio format holds, as far as libsndfile writes it: known before a job is sent, and before it is run.

A rate over 200,000 Hz ends the whole process inside libsndfile's Vorbis encoder, so nothing is left to trying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .errors import InvalidJob
from .schema.jobs import AudioFormat

MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@dataclass(frozen=True)
class FormatLimits:
    """What one format holds.

    Attributes:
        takes_rate: whether it takes so many samples per second.
        rates: those rates, in words.
        max_channels: most channels.
        bits: of an integer sample that is kept as it is; 0 where the format is lossy.
        keeps_floats: whether floating-point samples are kept, those above full scale among them.
    """

    takes_rate: Callable[[int], bool]
    rates: str
    max_channels: int
    bits: int
    keeps_floats: bool = False


def _flac_takes(rate: int) -> bool:
    # What its frame headers can tell: any rate up to 65,535 Hz, and whole tens of hertz above.
    return 1 <= rate <= 65_535 or (rate <= 655_350 and rate % 10 == 0)


LIMITS: dict[AudioFormat, FormatLimits] = {
    "wav": FormatLimits(lambda rate: rate >= 1, "any rate", 1024, bits=32, keeps_floats=True),
    "flac": FormatLimits(_flac_takes, "up to 65,535 Hz, and whole tens of hertz up to 655,350", 8, bits=24),
    "mp3": FormatLimits(MP3_RATES.__contains__, f"the rates {', '.join(map(str, MP3_RATES))}", 2, bits=0),
    "ogg": FormatLimits(lambda rate: 1_000 <= rate <= 200_000, "1,000 to 200,000 Hz", 255, bits=0),
}
"""Limits by format; `tests/unit/shared/test_audio_formats.py` writes files on both sides of each."""


def check_format(format: AudioFormat, sample_rate: int, channels: int) -> None:
    """Refuse a format that cannot hold so many samples per second or channels.

    Raises:
        InvalidJob: with the field `format` and the formats that can.
    """
    if holds(format, sample_rate, channels):
        return
    limits = LIMITS[format]
    problem = f"{format} cannot hold {_channels(channels)} at {sample_rate} Hz"
    able = " or ".join(other for other in LIMITS if holds(other, sample_rate, channels))
    remedy = f"Use {able}; {format} holds {limits.rates}, and at most {_channels(limits.max_channels)}"
    details = {"format": format, "sample_rate": sample_rate, "channels": channels}
    raise InvalidJob(problem, "format", remedy, details)


def holds(format: AudioFormat, sample_rate: int, channels: int) -> bool:
    """Whether a format can hold so many samples per second and channels."""
    return LIMITS[format].takes_rate(sample_rate) and 1 <= channels <= LIMITS[format].max_channels


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
