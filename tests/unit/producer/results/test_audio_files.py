"""Saving in another format keeps rate, channels and depth, or says why it cannot."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from omnifleet.results.audio_files import convert, sound_form
from omnifleet_shared.errors import InvalidJob, MediaUnreadable
from omnifleet_shared.schema.jobs import AudioFormat
from support.data import media_files

NOISE = np.random.default_rng(5).uniform(-1, 1, (70_000, 2))


def written(subtype: str, format: str = "WAV", samples: NDArray[np.float64] = NOISE, rate: int = 48_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


def read(data: bytes) -> tuple[NDArray[np.float64], str]:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        return file.read(always_2d=True), file.subtype


@pytest.mark.parametrize(
    ("source", "subtype", "wanted", "held"),
    [
        ("WAV", "PCM_16", "flac", "PCM_16"),
        ("WAV", "PCM_24", "flac", "PCM_24"),
        ("FLAC", "PCM_24", "wav", "PCM_24"),
        ("WAV", "PCM_24", "wav", "PCM_24"),
        ("WAV", "PCM_32", "wav", "PCM_32"),
        ("WAV", "FLOAT", "wav", "FLOAT"),
        ("WAV", "DOUBLE", "wav", "DOUBLE"),
        ("WAV", "PCM_U8", "flac", "PCM_16"),
    ],
)
def test_every_sample_is_kept(source: str, subtype: str, wanted: AudioFormat, held: str) -> None:
    data = written(subtype, source)

    samples, found = read(convert(data, wanted))

    assert found == held
    np.testing.assert_array_equal(samples, read(data)[0])


@pytest.mark.parametrize("subtype", ["PCM_32", "FLOAT", "DOUBLE"])
def test_what_flac_cannot_hold_is_rounded_to_24_bits(subtype: str) -> None:
    samples, found = read(convert(written(subtype), "flac"))

    assert found == "PCM_24"
    np.testing.assert_allclose(samples, NOISE, atol=2**-23)


def test_samples_above_full_scale_are_not_cut_off() -> None:
    loud = written("FLOAT", samples=NOISE * 1.5)

    with pytest.raises(InvalidJob, match="flac cuts samples off at full scale") as refused:
        convert(loud, "flac")

    assert refused.value.field == "format"
    np.testing.assert_array_equal(read(convert(loud, "wav"))[0], read(loud)[0])


@pytest.mark.parametrize(
    ("rate", "channels", "wanted"), [(384_000, 1, "ogg"), (96_000, 2, "mp3"), (44_100, 3, "mp3"), (44_100, 9, "flac")]
)
def test_what_a_format_cannot_hold_is_refused_by_name(rate: int, channels: int, wanted: AudioFormat) -> None:
    data = written("PCM_16", samples=np.zeros((2_000, channels)), rate=rate)

    with pytest.raises(InvalidJob, match=f"{wanted} cannot hold") as refused:
        convert(data, wanted)

    assert refused.value.field == "format"


def test_what_is_no_audio_cannot_be_converted() -> None:
    with pytest.raises(MediaUnreadable):
        convert(b"no sound" * 100, "flac")


def test_the_form_of_a_file_is_read_from_its_head() -> None:
    assert sound_form(io.BytesIO(written("PCM_24", "FLAC"))) == (48_000, 2)
    assert sound_form(io.BytesIO(media_files.video(0.2))) is None
