"""One channel of many: weighted by their places, as loud as it should be, and never cancelled to silence."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from omnifleet_worker.media.decode import DecodedAudio, decode_audio
from omnifleet_worker.media.downmix import mono_weights
from omnifleet_worker.media.signal import to_mono
from support.data import media_files

RATE = 16_000
TONE = media_files.tone(1.0, RATE)[0]
SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR")
WIDE = (*SURROUND, "SL", "SR")


def flac(channels: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, channels.T, RATE, format="FLAC", subtype="PCM_24")
    return file.getvalue()


def alone(number: int, channels: int) -> NDArray[np.float32]:
    """The tone in one channel, silence in the others."""
    samples = np.zeros((channels, RATE), np.float32)
    samples[number] = TONE
    return samples


def decibels(mono: NDArray[np.float32] | NDArray[np.float64], of: NDArray[np.float32] = TONE) -> float:
    """Level against a sound."""
    return float(10 * np.log10(np.square(mono).mean() / np.square(of).mean()))


@pytest.fixture(params=["whole", "on the way"])
def mix(request: pytest.FixtureRequest) -> object:
    """Mixing by both ways: after decoding, and block by block while it goes on."""
    if request.param == "whole":
        return lambda data: to_mono(decode_audio(data)).samples[0]
    return lambda data: decode_audio(data, mono_rate=RATE).samples[0]


# As ffmpeg's -ac 1 has them without normalisation.
@pytest.mark.parametrize(
    ("channels", "number", "expected"),
    [(6, 0, -3.0), (6, 1, -3.0), (6, 2, 0.0), (6, 4, -6.0), (6, 5, -6.0), (8, 2, 0.0), (8, 4, -6.0), (8, 6, -6.0)],
)
def test_5_1_and_7_1_are_weighted(mix: object, channels: int, number: int, expected: float) -> None:
    assert callable(mix)
    mono = mix(flac(alone(number, channels)))

    assert decibels(mono) == pytest.approx(expected, abs=0.05)


def test_the_effects_channel_is_left_out_of_what_else_is_heard(mix: object) -> None:
    assert callable(mix)
    samples = alone(2, 6)
    samples[3] = media_files.tone(1.0, RATE, hertz=50, level=0.5)[0]

    np.testing.assert_allclose(mix(flac(samples)), TONE, atol=1e-4)


def test_where_nothing_else_sounds_it_is_heard(mix: object) -> None:
    assert callable(mix)

    assert decibels(mix(flac(alone(3, 6)))) == pytest.approx(0, abs=0.05)


def test_channels_that_agree_are_no_louder_than_each_of_them(mix: object) -> None:
    assert callable(mix)

    np.testing.assert_allclose(mix(flac(np.stack([TONE] * 6))), TONE, atol=1e-3)


@pytest.mark.parametrize("share", [1.0, 0.99, 0.9])
@pytest.mark.parametrize("louder", [0, 1])
def test_channels_that_cancel_each_other_out_are_heard(mix: object, share: float, louder: int) -> None:
    assert callable(mix)
    samples = np.stack([TONE, -share * TONE])

    mono = mix(flac(samples if louder == 0 else samples[::-1]))

    assert decibels(mono) == pytest.approx(0.0, abs=0.05)


@pytest.mark.parametrize(("right", "expected"), [(0.0, -6.0), (1.0, 0.0)])
def test_stereo_that_does_not_cancel_is_the_mean(mix: object, right: float, expected: float) -> None:
    assert callable(mix)

    assert decibels(mix(flac(np.stack([TONE, right * TONE])))) == pytest.approx(expected, abs=0.05)


def test_silence_stays_silence(mix: object) -> None:
    assert callable(mix)

    assert not mix(flac(np.zeros((2, RATE), np.float32))).any()


@pytest.mark.parametrize(
    ("channels", "places", "weights"),
    [
        (2, ("FL", "FR"), None),
        (4, None, None),
        (3, ("FL", "FR", "LFE"), [0.5, 0.5, 0]),
        (3, ("FL", "FR", "FC"), [0.5**0.5, 0.5**0.5, 1]),
        (6, SURROUND, [0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5]),
        (6, None, [0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5]),
        (8, WIDE, [0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5, 0.5, 0.5]),
    ],
)
def test_weights_follow_the_places(channels: int, places: tuple[str, ...] | None, weights: list[float] | None) -> None:
    found = mono_weights(channels, places)

    assert (None if found is None else found.tolist()) == (None if weights is None else pytest.approx(weights))


def test_a_long_recording_is_mixed_in_blocks_to_the_same() -> None:
    samples = np.random.default_rng(3).uniform(-1, 1, (2, 200_000)).astype(np.float32)

    mono = to_mono(DecodedAudio(samples, RATE)).samples[0]

    np.testing.assert_array_equal(mono, samples.mean(axis=0))
