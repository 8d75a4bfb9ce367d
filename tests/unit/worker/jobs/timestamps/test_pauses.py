"""Where somebody speaks: between the pauses, whatever the level and the noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_worker.jobs.timestamps.pauses import MARGIN_SECONDS, find_speech

RATE = 16_000


def sound(*spans: tuple[float, float], seconds: float, level: float = 0.3, noise: float = 0.001) -> np.ndarray:
    """Tones between moments, over noise."""
    times = np.arange(round(seconds * RATE)) / RATE
    loud = np.any([(times >= start) & (times < end) for start, end in spans] or [times < 0], axis=0)
    wave = level * loud * np.sin(2 * np.pi * 220 * times) + np.random.default_rng(0).normal(0, noise, len(times))
    return wave.astype(np.float32)


def seconds(found: list[range]) -> list[tuple[float, float]]:
    return [(one.start / RATE, one.stop / RATE) for one in found]


@pytest.mark.parametrize(("level", "noise"), [(0.3, 0.001), (0.9, 0.1), (0.01, 0.0002), (0.3, 0.0)])
def test_speech_is_found_between_pauses(level: float, noise: float) -> None:
    spans = [(1.0, 3.0), (4.0, 4.6), (6.0, 9.0)]

    found = seconds(find_speech(sound(*spans, seconds=10, level=level, noise=noise), RATE, 15))

    expected = [(start - MARGIN_SECONDS, end + MARGIN_SECONDS) for start, end in spans]
    assert found == pytest.approx(np.array(expected), abs=0.03)


def test_short_pauses_lie_within_a_stretch() -> None:
    wave = sound((1.0, 1.4), (1.6, 2.0), (2.45, 3.0), seconds=5)

    assert len(find_speech(wave, RATE, 15)) == 1
    assert len(find_speech(wave, RATE, 1.5)) == 2


def test_a_recording_that_gets_louder_is_heard_from_the_start() -> None:
    quiet, loud = sound((1.0, 2.0), seconds=100, level=0.005, noise=1e-5), sound((1.0, 2.0), seconds=40, level=0.9)

    found = seconds(find_speech(np.concatenate([quiet, loud]), RATE, 15))

    assert [round(start) for start, _ in found] == [1, 101]


def test_a_pause_of_half_a_minute_is_no_speech_whatever_its_noise() -> None:
    found = seconds(find_speech(sound((1.0, 2.0), (65.0, 66.0), seconds=80, noise=0.01), RATE, 15))

    assert [round(start) for start, _ in found] == [1, 65]


def test_speech_without_pauses_is_cut() -> None:
    found = find_speech(sound((0, 60), seconds=60), RATE, 15)

    assert (found[0].start, found[-1].stop) == (0, 60 * RATE)
    assert all(one.stop == after.start for one, after in pairwise(found))
    assert max(map(len, found)) <= 15 * RATE


@pytest.mark.parametrize("noise", [0.0, 1e-5])
def test_silence_is_no_speech(noise: float) -> None:
    assert find_speech(sound(seconds=5, noise=noise), RATE, 15) == []


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=400), st.integers(1, 40), st.floats(0.5, 15))
def test_stretches_are_in_order_and_inside(levels: list[float], repeats: int, longest: float) -> None:
    wave = np.repeat(np.array(levels, np.float32), repeats * 10)

    found = find_speech(wave, RATE, longest)

    assert all(0 <= one.start < one.stop <= len(wave) for one in found)
    assert all(one.stop <= after.start for one, after in pairwise(found))
    assert all(len(one) <= longest * RATE + 1 for one in found)
