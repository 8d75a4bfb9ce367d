"""The image of a stereo source: what was not changed stays in its place, what was removed goes from both channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from omnifleet_worker.jobs.sound_edit.image import place
from support.data.sounds import RATE, Mono, decibels, noise, voice, with_other_phases

Stereo = NDArray[np.float32]


def at(sound: Mono, left: float, right: float) -> Stereo:
    return np.stack([left * sound, right * sound]).astype(np.float32)[:, : 4 * RATE]


LEFT, RIGHT, CENTRE = at(voice(110, 1), 1, 0), at(voice(190, 2), 0.2, 1), at(voice(150, 3), 0.7, 0.7)
AROUND = np.stack([noise(11, 0.01), noise(12, 0.01)])[:, : 4 * RATE]
SCENE = LEFT + RIGHT + CENTRE + AROUND
NEW = at(noise(5), 1, 1)
NEW_VOICE = at(voice(130, 9), 1, 1)

EDITS = {
    "a voice at the left is removed": ("remove", RIGHT + CENTRE + AROUND, -20),
    "a voice at the right is removed": ("remove", LEFT + CENTRE + AROUND, -20),
    "a voice in the middle is removed": ("remove", LEFT + RIGHT + AROUND, -15),
    "a voice at the left is extracted": ("extract", LEFT, -15),
    "a voice in the middle is extracted": ("extract", CENTRE, -8),
    "rain is added": ("add", SCENE + NEW, -20),
    "loud rain is added": ("add", SCENE + 4 * NEW, -25),
    "a voice is added": ("add", SCENE + NEW_VOICE, -25),
    "nothing is changed": ("style", SCENE, -110),
}
"""The task, what the scene should be after an edit whose mid is as it should be, and the most decibels of the error."""


def edited(made: Mono, source: Stereo = SCENE, task: str = "style") -> Stereo:
    return place(made, source.mean(axis=0), source, task)


@pytest.mark.parametrize("edit", EDITS)
class TestEdits:
    def test_left_and_right_are_what_they_should_be(self, edit: str) -> None:
        task, wanted, most = EDITS[edit]

        found = edited(wanted.mean(axis=0), task=task)

        assert decibels(found - wanted) - decibels(wanted) < most

    def test_the_mono_mix_is_what_the_model_made(self, edit: str) -> None:
        task, wanted, _ = EDITS[edit]

        found = edited(wanted.mean(axis=0), task=task)

        assert decibels(found.mean(axis=0) - wanted.mean(axis=0)) < -110


class TestPlaces:
    def test_what_is_removed_does_not_stay_in_the_sides(self) -> None:
        """The plain difference of the mids would leave half of it in each channel, in opposite phase."""
        found = edited(AROUND.mean(axis=0), LEFT + AROUND, "remove")

        plain = LEFT + AROUND + (AROUND.mean(axis=0) - (LEFT + AROUND).mean(axis=0))
        assert decibels(found - AROUND) < decibels(plain - AROUND) - 20

    @pytest.mark.parametrize(("source", "apart"), [(LEFT, 15), (RIGHT, 10), (CENTRE, 0)])
    def test_a_sound_with_other_phases_is_where_it_was(self, source: Stereo, apart: float) -> None:
        found = edited(with_other_phases(source.mean(axis=0)), (source + 0.1 * AROUND).astype(np.float32))

        levels = [decibels(channel) for channel in found]
        assert abs(levels[0] - levels[1]) == pytest.approx(apart, abs=0.5) if not apart else True
        assert abs(levels[0] - levels[1]) >= apart - 0.5
        assert decibels(found) == pytest.approx(decibels(source), abs=1)

    def test_another_sound_in_place_of_one_is_where_that_was(self) -> None:
        other = voice(240, 1)

        left, right = (decibels(channel) for channel in edited(at(other, 0.5, 0.5)[0], LEFT))

        assert left > right + 3

    def test_what_is_heard_in_the_sides_alone_stays(self) -> None:
        sides = at(noise(21), 1, -1)

        found = edited((SCENE + NEW).mean(axis=0), SCENE + sides, "add")

        assert decibels(found - (SCENE + sides + NEW)) < decibels(SCENE) - 20

    def test_where_one_channel_was_heard_because_both_cancel_out_both_are_kept(self) -> None:
        source = at(voice(110, 1), 1, -1)

        found = place(source[0], source[0], source, "style")

        np.testing.assert_allclose(found, source, atol=4e-6)


class TestNothingChanged:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(1, 60_000), st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-3, 1e-6, 0.0]))
    def test_it_comes_back_whatever_its_length_and_level(self, samples: int, seed: int, level: float) -> None:
        source = (level * np.random.default_rng(seed).uniform(-1, 1, (2, samples))).astype(np.float32)

        np.testing.assert_allclose(edited(source.mean(axis=0), source), source, atol=4e-6)

    @pytest.mark.parametrize("task", ["add", "remove", "extract", "style"])
    @pytest.mark.parametrize("source", [SCENE, LEFT, at(noise(3), 1, -0.999)])
    def test_by_any_task(self, source: Any, task: str) -> None:
        np.testing.assert_allclose(edited(source.mean(axis=0), source, task), source, atol=4e-6)
