"""Resampling, mixing down and trimming keep what matters of a sound."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_worker.media.decode import DecodedAudio, decode_audio
from omnifleet_worker.media.signal import resample, to_mono, trim_silence
from support.data import media_files


@pytest.mark.parametrize(("source", "target"), [(8_000, 44_100), (44_100, 16_000), (96_000, 44_100), (22_050, 48_000)])
def test_resampling_keeps_the_tone(source: int, target: int) -> None:
    audio = DecodedAudio(media_files.tone(1.0, source, 2), source)

    resampled = resample(audio, target)

    expected = media_files.tone(1.0, target, 2)
    assert resampled.samples.dtype == np.float32
    assert (resampled.sample_rate, resampled.samples.shape) == (target, expected.shape)
    inner = slice(target // 10, -target // 10)
    np.testing.assert_allclose(resampled.samples[:, inner], expected[:, inner], atol=0.01)


def test_the_right_rate_is_left_alone() -> None:
    audio = DecodedAudio(media_files.tone(0.1, 44_100), 44_100)

    assert resample(audio, 44_100) is audio


@pytest.mark.parametrize("source", [44_078, 44_056, 44_101, 47_952, 47_999, 48_048, 11_024, 15_999])
@pytest.mark.parametrize("target", [44_100, 16_000])
def test_rates_close_to_another_keep_pitch_and_length(source: int, target: int) -> None:
    audio = DecodedAudio(media_files.tone(11.0, source, 2), source)

    resampled = resample(audio, target)

    assert resampled.samples.shape == (2, 11 * target)
    inner = slice(target // 10, -target // 10)
    np.testing.assert_allclose(resampled.samples[:, inner], media_files.tone(11.0, target, 2)[:, inner], atol=0.005)


@pytest.mark.parametrize("source", [44_056, 44_078, 44_101, 47_999, 11_111])
def test_what_is_resampled_on_the_way_keeps_them_too(source: int) -> None:
    file = media_files.encode("wav-float", media_files.tone(11.0, source), source)

    heard = decode_audio(file, mono_rate=16_000).samples

    assert heard.shape == (1, 11 * 16_000)
    inner = slice(1_600, -1_600)
    np.testing.assert_allclose(heard[:, inner], media_files.tone(11.0, 16_000)[:, inner], atol=0.005)


def test_any_rate_keeps_exact_numbers_exact() -> None:
    audio = DecodedAudio(media_files.tone(0.5, 44_101).astype(np.float64), 44_101)

    assert resample(audio, 44_100).samples.dtype == np.float64


@pytest.mark.parametrize("odd_rate", [44_101, 47_999, 4_001, 383_987])
def test_an_odd_rate_costs_no_more_than_any_other(odd_rate: int) -> None:
    audio = DecodedAudio(media_files.tone(0.5, odd_rate), odd_rate)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    resampled = resample(audio, 44_100)

    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kib < 500_000  # the filter for 44,101 Hz taken literally has 15 GB
    assert resampled.seconds == pytest.approx(0.5, abs=0.001)


def test_mono_is_the_mean_of_the_channels() -> None:
    samples = np.array([[0.5, 0.0, -1.0], [0.0, 0.5, -1.0]], np.float32)

    mono = to_mono(DecodedAudio(samples, 8_000))

    assert mono.samples.dtype == np.float32
    np.testing.assert_array_equal(mono.samples, [[0.25, 0.25, -1.0]])
    assert to_mono(mono) is mono


def test_silence_at_both_ends_is_cut_and_a_pause_stays() -> None:
    rate = 16_000
    sound, pause, quiet = (
        media_files.tone(0.3, rate),
        np.zeros((1, 4_800), np.float32),
        media_files.tone(0.5, rate) / 100,
    )
    samples = np.concatenate([quiet, sound, pause, sound, quiet], axis=1)

    trimmed = trim_silence(samples, rate)

    np.testing.assert_array_equal(trimmed, samples[:, 8_000 : 8_000 + 3 * 4_800])


def test_how_far_below_the_peak_counts_as_silence_can_be_chosen() -> None:
    rate = 16_000
    sound = media_files.tone(0.3, rate)
    samples = np.concatenate([sound / 100, sound], axis=1)  # 40 dB under

    assert trim_silence(samples, rate, below_peak_db=30).shape[1] == sound.shape[1]
    assert trim_silence(samples, rate, below_peak_db=50).shape[1] == samples.shape[1]


def test_silence_throughout_is_returned_whole() -> None:
    samples = np.zeros((2, 1000), np.float32)

    assert trim_silence(samples, 8_000) is samples


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 2000),
    channels=st.integers(1, 3),
    rate=st.sampled_from([50, 4_000, 44_100]),
    below=st.floats(0, 120),
    seed=st.integers(0, 2**32 - 1),
)
def test_trimming_never_leaves_nothing_and_never_invents(
    length: int, channels: int, rate: int, below: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = (rng.standard_normal((channels, length)) * rng.random(length) ** 8).astype(np.float32)

    trimmed = trim_silence(samples, rate, below)

    assert 0 < trimmed.shape[1] <= length
    assert trimmed.shape[0] == channels
    assert np.shares_memory(trimmed, samples)
    assert np.abs(trimmed).max() <= np.abs(samples).max()
