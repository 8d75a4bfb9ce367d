"""Where two recordings that say almost the same are joined, and where words end that were heard at about that time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_worker.engines.speech.word_edits.joints import Joints, find_joints
from omnifleet_worker.engines.speech.word_edits.pauses import settle_words
from omnifleet_worker.jobs.speech_edit.words import Word
from support.speech.tone_words import PAUSE_SECONDS, WORD_SECONDS, hear, say

RATE = 16_000
STEP = WORD_SECONDS + PAUSE_SECONDS


@pytest.mark.parametrize("wrong", [-0.1, 0.0, 0.1])
def test_recordings_are_joined_in_the_pauses_beside_what_differs(wrong: float) -> None:
    source, made = (say(f"hello my {word} old friend", RATE).astype(np.float64) for word in ("dear", "good"))
    begin = 0.2 + 2 * STEP
    heard = Joints(begin + wrong, begin + WORD_SECONDS + wrong)

    found = find_joints(source, made, (heard, heard))

    assert found is not None
    for one in found:
        assert begin - PAUSE_SECONDS - 0.02 <= one.start <= begin + 0.02
        assert begin + WORD_SECONDS - 0.02 <= one.end <= begin + STEP + 0.02


def test_recordings_with_nothing_in_common_are_not_joined() -> None:
    one, other = (say(word, RATE, lead=0.02).astype(np.float64) for word in ("dear", "good"))

    assert find_joints(one, other, (Joints(0.02, 0.3), Joints(0.02, 0.3))) is None


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.1, 0.1), min_size=3, max_size=3))
def test_words_end_in_the_pauses_whenever_they_were_heard(off: list[float]) -> None:
    wave = say("hello my dear", RATE)
    edges = [
        0.0,
        *(0.2 + number * STEP - PAUSE_SECONDS / 2 + 0.05 + off[number] for number in (1, 2)),
        len(wave) / RATE,
    ]
    roughly = [Word(text, *edges[number : number + 2]) for number, text in enumerate(("hello", "my", "dear"))]

    found = settle_words(roughly, wave, RATE)

    for word, true in zip(found, hear(wave, RATE), strict=True):
        assert abs(word.start - true.start) < 0.03
        assert abs(word.end - true.end) < 0.03


def test_words_without_a_time_share_that_of_their_neighbours() -> None:
    wave = np.random.default_rng(1).standard_normal(RATE).astype(np.float32)

    found = settle_words([Word("the", 0.2, 0.6), Word("lazy", 0.6, 0.6), Word("dog", 0.6, 0.9)], wave, RATE)

    assert all(word.start < word.end for word in found)
    assert settle_words([], wave, RATE) == []
