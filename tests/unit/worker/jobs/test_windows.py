"""Windows of long audio: every length comes out as it went in, and so does every sample that nothing changed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_worker.jobs.windows import (
    FADE_SAMPLES,
    PROMPT_SAMPLES,
    continuation_prompt,
    count_generated,
    edit_windows,
    join_edited,
    join_generated,
)
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES

RATE = 44_100
ADDED = 439_228

lengths = st.integers(1, 700 * RATE) | st.integers(-3, 3).flatmap(
    lambda near: st.integers(1, 5).map(lambda count: max(1, FADE_SAMPLES + count * 396_900 + near))
)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=12, deadline=None)


def noise(samples: int, seed: int = 0, channels: int = 2) -> np.ndarray:
    return 0.2 * np.random.default_rng(seed).standard_normal((channels, samples), dtype=np.float32)


def cut(source: np.ndarray, windows: list[range]) -> list[np.ndarray]:
    return [source[:, window.start : window.stop] for window in windows]


def decibels(samples: np.ndarray) -> float:
    return 10 * float(np.log10(np.square(samples, dtype=np.float64).mean()))


def seams(windows: list[range]) -> list[range]:
    """The crossfaded seconds."""
    middles = [(before.stop + after.start) // 2 for before, after in pairwise(windows)]
    return [range(middle - FADE_SAMPLES // 2, middle + FADE_SAMPLES // 2) for middle in middles]


class TestGeneration:
    @given(lengths)
    def test_there_are_enough_windows_and_not_one_more(self, samples: int) -> None:
        count = count_generated(samples)

        assert count == 1 or CLIP_SAMPLES + ADDED * (count - 2) < samples
        assert samples <= CLIP_SAMPLES + ADDED * (count - 1)

    @pytest.mark.parametrize(("seconds", "count"), [(0.1, 1), (10, 1), (10.9, 1), (11, 2), (25, 3), (300, 31)])
    def test_three_hundred_seconds_take_one_more_than_thirty(self, seconds: float, count: int) -> None:
        assert count_generated(round(seconds * RATE)) == count

    def test_a_single_clip_stays_as_it_is(self) -> None:
        clip = noise(CLIP_SAMPLES)

        assert np.array_equal(join_generated([clip]), clip)

    def test_clips_follow_each_other_with_a_linear_crossfade_of_a_second(self) -> None:
        clips = [np.full((2, CLIP_SAMPLES), level, np.float32) for level in (0.0, 1.0, -1.0)]

        joined = join_generated(clips)

        assert joined.shape == (2, CLIP_SAMPLES + 2 * ADDED)
        assert np.all(joined[:, :ADDED] == 0)
        ramp = np.linspace(0, 1, FADE_SAMPLES)
        np.testing.assert_allclose(joined[0, ADDED:CLIP_SAMPLES], ramp, atol=1e-6)
        assert np.all(joined[:, CLIP_SAMPLES : 2 * ADDED] == 1)
        np.testing.assert_allclose(joined[1, 2 * ADDED : ADDED + CLIP_SAMPLES], 1 - 2 * ramp, atol=1e-6)
        assert np.all(joined[:, ADDED + CLIP_SAMPLES :] == -1)

    def test_the_next_window_hears_ten_seconds_of_both_channels(self) -> None:
        clip = noise(CLIP_SAMPLES)

        prompt = continuation_prompt(clip)

        assert prompt.shape == (441_000,)
        assert prompt.dtype == np.float32
        np.testing.assert_allclose(prompt, (clip[0] + clip[1])[:441_000] / 2, atol=1e-7)


class TestWindowsOfAnEdit:
    @given(lengths)
    def test_they_cover_any_length_and_nothing_else(self, samples: int) -> None:
        windows = edit_windows(samples)

        assert (windows[0].start, windows[-1].stop) == (0, samples)
        assert {len(window) for window in windows} == {min(samples, PROMPT_SAMPLES)}

    @given(lengths)
    def test_neighbours_share_a_second_and_no_crossfade_runs_into_another(self, samples: int) -> None:
        windows = edit_windows(samples)

        shared = [before.stop - after.start for before, after in pairwise(windows)]
        assert all(one >= FADE_SAMPLES for one in shared)
        fades = seams(windows)
        assert all(before.stop <= after.start for before, after in pairwise(fades))

    @given(lengths)
    def test_there_are_no_more_than_it_takes(self, samples: int) -> None:
        fewer = len(edit_windows(samples)) - 1

        assert fewer == 0 or fewer * (PROMPT_SAMPLES - FADE_SAMPLES) + FADE_SAMPLES < samples


class TestJoinOfAnEdit:
    @few
    @given(st.integers(1, 60 * RATE), st.sampled_from([1, 2]), seeds)
    def test_what_nothing_changed_comes_back_as_it_was(self, samples: int, channels: int, seed: int) -> None:
        source = noise(samples, seed, channels)
        windows = edit_windows(samples)

        joined = join_edited(cut(source, windows), windows)

        assert joined.shape == source.shape
        assert joined.dtype == np.float32
        np.testing.assert_allclose(joined, source, atol=1e-5)

    @few
    @given(st.integers(PROMPT_SAMPLES + 1, 60 * RATE), seeds)
    def test_strangers_meet_at_constant_power(self, samples: int, seed: int) -> None:
        windows = edit_windows(samples)
        clips = [noise(len(window), seed + index) for index, window in enumerate(windows)]

        joined = join_edited(clips, windows)

        whole = decibels(joined)
        tenths = [part for seam in seams(windows) for part in np.array_split(joined[:, seam.start : seam.stop], 10, 1)]
        assert max(abs(decibels(part) - whole) for part in tenths) < 0.3

    @pytest.mark.parametrize("alike", [-0.4, 0.3, 0.7, 0.95])
    def test_so_do_those_that_are_partly_alike(self, alike: float) -> None:
        windows = edit_windows(20 * RATE)
        common = noise(20 * RATE)
        clips = [
            np.float32((-1) ** (index * (alike < 0)) * abs(alike) ** 0.5) * clip
            + np.float32((1 - abs(alike)) ** 0.5) * noise(clip.shape[1], index + 1)
            for index, clip in enumerate(cut(common, windows))
        ]

        joined = join_edited(clips, windows)

        for seam in seams(windows):
            for part in np.array_split(joined[:, seam.start : seam.stop], 10, 1):
                assert decibels(part) == pytest.approx(decibels(common), abs=0.3)

    def test_silence_stays_silent(self) -> None:
        windows = edit_windows(25 * RATE)

        joined = join_edited([np.zeros((2, PROMPT_SAMPLES), np.float32)] * len(windows), windows)

        assert joined.shape == (2, 25 * RATE)
        assert not joined.any()
