"""The table of what formats hold is what libsndfile writes, and no rate that ends its process is in it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_shared.audio_formats import LIMITS, check_format, holds
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.jobs import AudioFormat
from support import ROOT

FORMATS = sorted(LIMITS)


def write(format: AudioFormat, rate: int, channels: int) -> tuple[int, int]:
    """Rate and channels of what libsndfile wrote, read back."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((2_000, channels)), rate, format=format.upper())
    info = soundfile.info(io.BytesIO(file.getvalue()))
    return info.samplerate, info.channels


@settings(max_examples=80, deadline=None)
@given(format=st.sampled_from(FORMATS), rate=st.integers(1, 700_000), channels=st.integers(1, 16))
def test_what_a_format_holds_is_written(format: AudioFormat, rate: int, channels: int) -> None:
    if holds(format, rate, channels):
        assert write(format, rate, channels) == (rate, channels)


@pytest.mark.parametrize(
    ("format", "rate", "channels"),
    [
        ("ogg", 1_000, 1), ("ogg", 200_000, 2), ("ogg", 48_000, 255),
        ("mp3", 8_000, 1), ("mp3", 48_000, 2),
        ("flac", 65_535, 1), ("flac", 655_350, 8),
        ("wav", 1, 1), ("wav", 1_000_000, 64),
    ],
)  # fmt: skip
def test_the_ends_of_what_a_format_holds_are_written(format: AudioFormat, rate: int, channels: int) -> None:
    check_format(format, rate, channels)

    assert write(format, rate, channels) == (rate, channels)


@pytest.mark.parametrize(
    ("format", "rate", "channels", "able"),
    [
        ("ogg", 384_000, 1, "wav or flac"),  # ends the process inside libsndfile
        ("ogg", 200_001, 2, "wav"),
        ("ogg", 48_000, 256, "wav"),
        ("mp3", 96_000, 2, "wav or flac or ogg"),
        ("mp3", 44_100, 3, "wav or flac or ogg"),
        ("flac", 65_537, 1, "wav or ogg"),
        ("flac", 655_351, 1, "wav"),
        ("flac", 48_000, 9, "wav or ogg"),
    ],
)
def test_beyond_them_the_format_is_refused_with_those_that_can(
    format: AudioFormat, rate: int, channels: int, able: str
) -> None:
    with pytest.raises(InvalidJob, match=f"{format} cannot hold") as refused:
        check_format(format, rate, channels)

    assert refused.value.field == "format"
    assert str(refused.value.remedy).startswith(f"Use {able};")
    assert refused.value.details == {"format": format, "sample_rate": rate, "channels": channels}


@pytest.mark.parametrize(("format", "rate", "channels"), [("mp3", 96_000, 2), ("flac", 65_537, 1), ("flac", 48_000, 9)])
def test_libsndfile_refuses_them_too(format: AudioFormat, rate: int, channels: int) -> None:
    with pytest.raises(soundfile.LibsndfileError):
        write(format, rate, channels)


def test_the_page_on_media_tells_the_same() -> None:
    page = (ROOT / "docs/how-to/media.md").read_text()

    for format, limits in LIMITS.items():
        assert f"| {format} | {limits.rates} | {limits.max_channels:,} |" in page
