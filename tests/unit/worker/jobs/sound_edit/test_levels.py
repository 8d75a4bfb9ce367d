"""An edit is as loud as its source: what was kept has the level that it had, whatever peak the clip came with."""

from __future__ import annotations

import numpy as np
import pytest
from omnifleet_worker.jobs.sound_edit.levels import MOST_DB, find_gain, level_windows
from omnifleet_worker.jobs.windows import edit_windows
from support.data.sounds import Mono, decibels, noise, voice, with_other_phases

RATE = 44_100
SPEECH, OTHER, RAIN = voice(110, 1), voice(190, 2), noise(7)


def off_by(kept: Mono, source: Mono, task: str) -> float:
    """Decibels by which what was made of the source is louder than it should be, once it came with a peak of 1."""
    made = kept / np.abs(kept).max()
    gain = find_gain(made, source, task)
    assert gain is not None
    return 20 * float(np.log10(gain / np.abs(kept).max()))


class TestGain:
    @pytest.mark.parametrize("task", ["add", "remove", "extract", "style"])
    def test_a_sound_that_was_not_changed_is_exactly_as_loud(self, task: str) -> None:
        assert off_by(SPEECH, SPEECH, task) == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("added", [0.1 * RAIN, RAIN, 3 * RAIN, 0.1 * OTHER, OTHER, 3 * OTHER])
    def test_what_something_was_added_to_is_as_loud_as_before(self, added: Mono) -> None:
        assert off_by(SPEECH + added, SPEECH, "add") == pytest.approx(0, abs=0.8)

    @pytest.mark.parametrize("task", ["remove", "extract"])
    @pytest.mark.parametrize("gone", [0.1 * RAIN, RAIN, 3 * RAIN, 0.1 * OTHER, OTHER, 3 * OTHER])
    def test_what_is_left_is_as_loud_as_before(self, gone: Mono, task: str) -> None:
        assert off_by(SPEECH, SPEECH + gone, task) == pytest.approx(0, abs=0.8)

    @pytest.mark.parametrize("noise_of", [0.1, 0.3, 1.0])
    def test_noise_that_was_beneath_a_loud_voice_is_not_raised_to_it(self, noise_of: float) -> None:
        left = (noise_of * RAIN + 0.03 * with_other_phases(SPEECH)).astype(np.float32)

        assert off_by(left, (SPEECH + noise_of * RAIN).astype(np.float32), "remove") == pytest.approx(0, abs=0.8)

    @pytest.mark.parametrize("task", ["add", "remove", "extract", "style"])
    def test_other_phases_change_no_level(self, task: str) -> None:
        source = SPEECH + OTHER + RAIN

        assert off_by(with_other_phases(source), source, task) == pytest.approx(0, abs=0.8)

    def test_something_wholly_new_is_about_as_loud_as_what_it_is_made_of(self) -> None:
        made = with_other_phases(OTHER)

        gain = find_gain(made / np.abs(made).max(), SPEECH, "style")

        assert gain is not None
        assert decibels(made / np.abs(made).max() * gain) == pytest.approx(decibels(SPEECH), abs=4)

    def test_silence_tells_no_level_and_needs_none(self) -> None:
        assert find_gain(RAIN, np.zeros_like(RAIN), "add") is None
        assert find_gain(np.zeros_like(RAIN), RAIN, "remove") == 1.0

    @pytest.mark.parametrize("task", ["add", "remove", "style"])
    def test_no_gain_is_without_bounds(self, task: str) -> None:
        gain = find_gain(1e-3 * RAIN, SPEECH, task)

        assert gain is not None
        assert abs(decibels(1e-3 * RAIN * gain) - decibels(SPEECH)) <= MOST_DB + 0.01


class TestWindows:
    def levelled(self, source: Mono, task: str = "add") -> Mono:
        """What a model gives back that changes nothing, each window with a peak of 1 and then at its level."""
        windows = edit_windows(len(source))
        parts = [source[one.start : one.stop] for one in windows]
        made = [part / max(1e-8, float(np.abs(part).max())) for part in parts]
        again = np.zeros_like(source)
        for one, clip, gain in zip(windows, made, level_windows(made, windows, source, task), strict=True):
            again[one.start : one.stop] = clip * gain
        return again

    def test_what_comes_after_a_silence_is_not_raised(self) -> None:
        source = np.concatenate([16 * RAIN[: 9 * RATE], np.zeros(RATE * 6 // 5, np.float32), RAIN[: 9 * RATE]])

        again = self.levelled(source)

        np.testing.assert_allclose(again, source, atol=1e-6)

    @pytest.mark.parametrize("end", [1e-4, 1e-2])
    def test_a_fade_stays_one(self, end: float) -> None:
        source = np.tile(RAIN, 3) * np.geomspace(1, end, 3 * len(RAIN), dtype=np.float32)

        again = self.levelled(source)

        np.testing.assert_allclose(again, source, atol=1e-6)

    @pytest.mark.parametrize("at", [0, 2])
    def test_a_window_in_which_nothing_is_heard_is_as_loud_as_its_neighbour(self, at: int) -> None:
        windows = [range(10 * RATE), range(9 * RATE, 19 * RATE), range(18 * RATE, 28 * RATE)]
        source = np.concatenate([RAIN, RAIN, RAIN])[: 28 * RATE]
        source[windows[at].start : windows[at].stop] = 0
        rain = noise(3, 0.02)
        made = [source[one.start : one.stop] + rain for one in windows]
        made = [clip / np.abs(clip).max() for clip in made]

        gains = level_windows(made, windows, source, "add")

        assert decibels(made[at] * gains[at]) == pytest.approx(decibels(rain), abs=1)

    def test_after_nothing_was_left_a_window_without_sound_stays_silent(self) -> None:
        windows = [range(10 * RATE), range(9 * RATE, 19 * RATE)]
        source = np.concatenate([RAIN[: 9 * RATE], np.zeros(10 * RATE, np.float32)])
        left = RAIN * np.concatenate([np.ones(8 * RATE), np.zeros(2 * RATE)]).astype(np.float32)
        hiss = noise(4, 1e-7)

        gains = level_windows([left, hiss / np.abs(hiss).max()], windows, source, "remove")

        assert gains[1] < 1e-4

    def test_where_nothing_is_heard_at_all_clips_keep_their_own_level(self) -> None:
        windows = edit_windows(25 * RATE)

        assert level_windows([RAIN] * len(windows), windows, np.zeros(25 * RATE, np.float32), "add") == pytest.approx(
            [1.0] * len(windows), rel=0.05
        )


def test_a_clip_of_mostly_opposite_phase_has_a_level_too() -> None:
    source = noise(3)
    turned = len(source) * 4 // 5
    made = 0.5 * np.concatenate([-source[:turned], source[turned:]])

    gain = find_gain(made, source, "add")

    assert gain == pytest.approx(2.0, rel=0.05)
