"""Long texts: cut where a speaker would pause, and joined without clicks or jumps in level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_worker.jobs.speech_parts import (
    CLAUSE_PAUSE,
    SENTENCE_PAUSE,
    WORD_PAUSE,
    join_speech,
    pause_after,
    split_text,
)

RATE = 44_100


def at_most(length: int):
    return lambda text: len(text) <= length


@given(st.text(alphabet="ab .,!?\n。，3é…'\"", min_size=1, max_size=200), st.integers(1, 40))
def test_parts_are_the_text_again_and_each_fits(text: str, longest: int) -> None:
    parts = split_text(text, at_most(longest))

    assert "".join(parts) == text
    assert all(0 < len(part) <= longest for part in parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It rains. The street is wet.", ["It rains. ", "The street is wet."]),
        ("Pi is 3.14159 and so on. Yes.", ["Pi is 3.14159 and so ", "on. Yes."]),
        ("First this, and then that comes", ["First this, ", "and then that comes"]),
        (
            "今天下雨了，街上很湿。明天会是晴天，我们出去走走吧。",
            ["今天下雨了，街上很湿。", "明天会是晴天，我们出去走走吧。"],
        ),
        ("He said: “No!” Then he left.", ["He said: “No!” ", "Then he left."]),
        ("a" * 50, ["a" * 22, "a" * 22, "a" * 6]),
    ],
)
def test_a_text_is_cut_where_a_speaker_pauses(text: str, parts: list[str]) -> None:
    assert split_text(text, at_most(22)) == parts


def test_a_text_that_fits_is_one_part() -> None:
    assert split_text("One. Two. Three.", at_most(100)) == ["One. Two. Three."]


@pytest.mark.parametrize(
    ("part", "seconds"),
    [
        ("It rains. ", SENTENCE_PAUSE),
        ("「雨です。」", SENTENCE_PAUSE),
        ("First this, ", CLAUSE_PAUSE),
        ("version 3.", SENTENCE_PAUSE),
        ("and then ", WORD_PAUSE),
    ],
)
def test_pauses_are_as_long_as_the_signs_ask(part: str, seconds: float) -> None:
    assert pause_after(part) == seconds


class TestJoining:
    def test_a_single_clip_stays_as_it_is(self) -> None:
        clip = np.random.default_rng(0).uniform(-1, 1, (2, 1000)).astype(np.float32)

        assert join_speech([clip], ["It rains."], RATE) is clip

    def test_parts_follow_each_other_after_their_pauses(self) -> None:
        clips = [np.ones((2, RATE), np.float32), np.ones((2, RATE), np.float32)]

        joined = join_speech(clips, ["It rains. ", "Still."], RATE)

        assert joined.shape == (2, 2 * RATE + round(SENTENCE_PAUSE * RATE))
        assert not joined[:, RATE : RATE + round(SENTENCE_PAUSE * RATE)].any()

    def test_no_joint_clicks(self) -> None:
        clips = [np.ones((1, RATE), np.float32), np.ones((1, RATE), np.float32)]

        joined = join_speech(clips, ["and ", "on"], RATE)

        assert np.abs(np.diff(joined, axis=1)).max() < 0.01

    def test_a_quiet_part_is_as_loud_as_the_first(self) -> None:
        rng = np.random.default_rng(0)
        loud, quiet = (rng.uniform(-peak, peak, (2, RATE)).astype(np.float32) for peak in (0.5, 0.05))

        joined = join_speech([loud, quiet], ["and ", "on"], RATE)

        first, second = joined[:, :RATE], joined[:, -RATE:]
        assert np.sqrt(np.square(second).mean()) == pytest.approx(np.sqrt(np.square(first).mean()), rel=0.02)

    def test_nothing_is_clipped(self) -> None:
        steady = np.full((1, RATE), 0.9, np.float32)
        spiky = np.zeros((1, RATE), np.float32)
        spiky[:, 1000::1000] = 0.9

        assert np.abs(join_speech([steady, spiky], ["and ", "on"], RATE)).max() <= 1
