"""What files take of memory, told before they are decoded."""

from __future__ import annotations

import pytest
from omnifleet_shared.errors import MediaTooLong, MediaUnreadable
from omnifleet_worker.media.decode import decode_audio
from omnifleet_worker.media.limits import MediaLimits
from omnifleet_worker.media.measure import measure_audio, measure_video
from omnifleet_worker.media.video import decode_video
from support.data import media_files

RATE = 44_100
SLACK_SAMPLES = 4096
"""Encoders' padding, which some headers count and others do not."""


@pytest.mark.parametrize("format", ["wav", "flac", "m4a"])
@pytest.mark.parametrize("options", [{}, {"exact": True}, {"mono_rate": 16_000}], ids=["float32", "float64", "mono"])
def test_the_samples_of_a_file_are_measured_as_they_are_decoded(format: str, options: dict[str, bool | int]) -> None:
    data = media_files.encode(format, media_files.tone(2.0, RATE, 2), RATE)

    samples = decode_audio(data, **options).samples  # type: ignore[arg-type]
    measured = measure_audio(data, **options)  # type: ignore[arg-type]

    assert measured == pytest.approx(samples.nbytes, abs=SLACK_SAMPLES * 2 * samples.itemsize)


@pytest.mark.parametrize(("format", "times"), [("mp3", 30), ("ogg", 300)])
def test_a_file_that_declares_no_length_counts_as_the_longest_of_its_size(format: str, times: int) -> None:
    data = media_files.encode(format, media_files.tone(2.0, RATE, 2), RATE)
    decoded = decode_audio(data).samples.nbytes

    assert decoded <= measure_audio(data) <= times * decoded
    assert measure_audio(data, limits=MediaLimits(max_decoded_bytes=2 * decoded)) <= 2 * decoded


def test_the_frames_of_a_film_are_measured_as_they_are_decoded() -> None:
    film = media_files.video(seconds=2.0)

    frames = decode_video(film, frames_per_second=5.0, max_seconds=60).frames

    assert measure_video(film, frames_per_second=5.0) == pytest.approx(frames.nbytes, abs=2 * frames[0].nbytes)


def test_what_cannot_be_decoded_is_refused_by_its_header_already() -> None:
    with pytest.raises(MediaUnreadable):
        measure_audio(b"no sound" * 100)
    flac = media_files.encode("flac", media_files.tone(5.0, RATE), RATE)
    with pytest.raises(MediaTooLong):
        measure_audio(flac, limits=MediaLimits(max_seconds=1))
