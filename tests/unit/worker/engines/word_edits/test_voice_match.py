"""Speech brought to another recording's pitch, sound, level and room."""

from __future__ import annotations

import numpy as np
import pytest
from omnifleet_worker.engines.speech.word_edits.voice_match import (
    add_room,
    match_pitch,
    match_sound,
    speech_level,
    voice_pitch,
)
from support.speech.tone_words import say

RATE = 24_000
SAID = "hello my dear old friend how are you"


def speech(**voice: float) -> np.ndarray:
    return say(SAID, RATE, **voice).astype(np.float64)


def decibels(ratio: float) -> float:
    return abs(20 * float(np.log10(ratio)))


@pytest.mark.parametrize("pitch", [80.0, 120.0, 210.0])
def test_the_pitch_of_a_voice_is_found(pitch: float) -> None:
    found = voice_pitch(speech(pitch=pitch), RATE)

    assert found == pytest.approx(pitch, rel=0.02)


def test_noise_and_silence_have_no_pitch() -> None:
    assert voice_pitch(np.random.default_rng(1).standard_normal(RATE), RATE) is None
    assert voice_pitch(np.zeros(RATE), RATE) is None


@pytest.mark.parametrize(("pitch", "after"), [(110.0, 120.0), (135.0, 120.0), (121.0, 121.0), (240.0, 240.0)])
def test_a_little_difference_of_pitch_is_evened_out(pitch: float, after: float) -> None:
    made = speech(pitch=pitch)

    shifted = match_pitch(made, speech(pitch=120.0), RATE)

    assert len(shifted) == len(made)
    assert voice_pitch(shifted, RATE) == pytest.approx(after, rel=0.02)


def test_level_and_sound_are_those_of_the_recording() -> None:
    def muffled(samples: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(samples)
        spectrum[np.fft.rfftfreq(len(samples), 1 / RATE) > 2000] *= 0.6
        return 0.1 * np.fft.irfft(spectrum, len(samples))

    def high(samples: np.ndarray) -> float:
        power = np.square(np.abs(np.fft.rfft(samples)))
        return float(np.sqrt(power[np.fft.rfftfreq(len(samples), 1 / RATE) > 2000].sum() / power.sum()))

    around = muffled(speech())
    fitted = match_sound(speech(), around, RATE)

    assert decibels(speech_level(fitted, RATE) / speech_level(around, RATE)) < 0.1
    assert decibels(high(fitted) / high(around)) < 1 < decibels(high(speech()) / high(around))


def test_the_noise_of_the_room_goes_on_under_what_was_made_without_it() -> None:
    noise = 0.004 * np.random.default_rng(1).standard_normal(len(speech()))

    joined = add_room(np.zeros(RATE), speech() + noise, RATE, seed=1)

    assert decibels(float(np.sqrt(np.square(joined).mean())) / 0.004) < 1.5
    assert np.array_equal(joined, add_room(np.zeros(RATE), speech() + noise, RATE, seed=1))


def test_where_a_recording_is_clean_nothing_is_added() -> None:
    assert np.array_equal(add_room(np.zeros(RATE), speech(), RATE, seed=1), np.zeros(RATE))
