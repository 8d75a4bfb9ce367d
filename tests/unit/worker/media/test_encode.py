"""Results come out as files that others can read."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from omnifleet_shared.errors import InvalidJob
from omnifleet_worker.media.decode import decode_audio
from omnifleet_worker.media.encode import AudioFormat, check_samples, encode_audio
from support.data import media_files

RATE = 44_100


def pcm(seconds: float = 0.5, rate: int = RATE, channels: int = 2) -> NDArray[np.int16]:
    return (media_files.tone(seconds, rate, channels).T * 32_767).astype(np.int16)


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_lossless_formats_keep_every_sample(format: AudioFormat) -> None:
    source = pcm()

    audio = decode_audio(encode_audio(source, RATE, format))

    assert audio.sample_rate == RATE
    np.testing.assert_array_equal(np.round(audio.samples.T * 32_768).astype(np.int16), source)


@pytest.mark.parametrize("format", ["mp3", "ogg"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossy_formats_keep_rate_channels_length_and_level(format: AudioFormat, channels: int) -> None:
    audio = decode_audio(encode_audio(pcm(channels=channels), RATE, format))

    assert (audio.sample_rate, len(audio.samples)) == (RATE, channels)
    assert audio.seconds == pytest.approx(0.5, abs=0.1)
    assert np.abs(audio.samples).max(axis=1) == pytest.approx([0.5] * channels, abs=0.05)


def test_the_full_range_of_16_bits_is_kept() -> None:
    source = np.array([[-32_768], [32_767], [0], [-1]], np.int16)

    audio = decode_audio(encode_audio(source, RATE, "wav"))

    np.testing.assert_array_equal(audio.samples[0] * 32_768, source[:, 0])


def test_minutes_of_ogg_do_not_overrun_the_encoder() -> None:
    silence = np.zeros((RATE * 300, 1), np.int16)

    assert encode_audio(silence, RATE, "ogg").startswith(b"OggS")


@pytest.mark.parametrize("format", get_args(AudioFormat))
def test_every_format_has_its_magic(format: AudioFormat) -> None:
    magic = {"wav": b"RIFF", "flac": b"fLaC", "mp3": b"\xff", "ogg": b"OggS"}[format]

    assert encode_audio(pcm(), RATE, format).startswith(magic)


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(
        InvalidJob, match=r"^format: audio cannot be written as 'aiff'\. Use one of wav, flac, mp3, ogg\.$"
    ):
        encode_audio(pcm(), RATE, "aiff")


@pytest.mark.parametrize(("rate", "channels"), [(96_000, 2), (44_100, 6)])
def test_what_mp3_cannot_hold_is_refused(rate: int, channels: int) -> None:
    with pytest.raises(InvalidJob, match="mp3 cannot hold"):
        encode_audio(pcm(0.1, rate, channels), rate, "mp3")


@pytest.mark.parametrize("rate", [200_001, 352_800, 384_000, 768_000])
def test_what_would_end_the_process_is_refused(rate: int) -> None:
    with pytest.raises(InvalidJob, match="ogg cannot hold 2 channels") as refused:
        encode_audio(pcm(0.1, rate), rate, "ogg")

    assert refused.value.field == "format"


class TestCheckSamples:
    def test_16_and_24_bits_are_kept_in_flac(self) -> None:
        for bits in (16, 24):
            assert check_samples(_of_bits(bits), "flac") is None

    @pytest.mark.parametrize(("samples", "named"), [("32", "32-bit"), ("float", "floating-point")])
    def test_more_is_rounded_and_said_so(self, samples: str, named: str) -> None:
        source = _of_bits(32) if samples == "32" else np.array([[0.1, 0.3]])

        warning = check_samples(source, "flac")

        assert warning is not None
        assert (
            warning == f"format: the recording's {named} samples are rounded to 24 bits in flac. Use wav to keep them."
        )
        assert check_samples(source, "wav") is None

    @pytest.mark.parametrize("format", ["flac", "mp3", "ogg"])
    def test_samples_above_full_scale_are_refused(self, format: AudioFormat) -> None:
        loud = np.array([[0.5, -1.5]])

        with pytest.raises(InvalidJob, match=r"reaches 3\.5 dB above") as refused:
            check_samples(loud, format)

        assert refused.value.field == "format"
        assert check_samples(loud, "wav") is None

    def test_what_a_lossy_decoder_overshoots_is_said_and_its_depth_is_not(self) -> None:
        warning = check_samples(np.array([[0.1, -1.1]]), "flac", lossy=True)

        assert warning is not None and "0.8 dB above" in warning
        assert check_samples(np.array([[0.1, 0.3]]), "flac", lossy=True) is None


def _of_bits(bits: int) -> NDArray[np.float64]:
    """Samples [1, n] that so many bits hold and fewer do not."""
    return np.array([[1, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1]]) / 2.0 ** (bits - 1)


@pytest.mark.parametrize("wrong", [np.zeros((10, 2), np.float32), np.zeros(10, np.int16)])
def test_arrays_of_another_kind_are_refused(wrong: NDArray[np.int16]) -> None:
    with pytest.raises(ValueError, match="int16"):
        encode_audio(wrong, RATE, "wav")
