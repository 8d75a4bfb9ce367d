"""Recognisers of transformers: which folders are any, and how what they find becomes words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_worker.engines.recordings.recogniser import time_words
from omnifleet_worker.engines.speech.recogniser import TransformersRecogniser
from omnifleet_worker.jobs.speech_edit.words import Word, split_words
from support.data.aligner_folder import write_tiny_aligner
from support.speech.vits_folder import write_tiny_vits

CARD = {"name": "ears", "licence": "MIT", "commercial_use": True, "tasks": {"understand.transcribe": {}}}


def test_a_recogniser_with_ctc_gives_words_with_their_times(tmp_path: Path) -> None:
    write_tiny_aligner(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps(CARD))

    recogniser = TransformersRecogniser.from_pretrained(tmp_path)
    words = recogniser.recognise(np.random.default_rng(1).standard_normal(16_000).astype(np.float32), "en")

    assert (recogniser.card.name, recogniser.card.commercial) == ("ears", True)
    assert words
    assert all(0 <= word.start < word.end <= 1.1 for word in words)


def test_a_folder_that_tells_no_licence_is_refused(tmp_path: Path) -> None:
    write_tiny_aligner(tmp_path)

    with pytest.raises(CheckpointInvalid, match="licence"):
        TransformersRecogniser.from_pretrained(tmp_path)


def test_a_model_that_hears_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="OMNIFLEET_RECOGNISER"):
        TransformersRecogniser.from_pretrained(write_tiny_vits(tmp_path))
    with pytest.raises(CheckpointInvalid, match="OMNIFLEET_RECOGNISER"):
        TransformersRecogniser.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (
            [(" at", 0.0, 0.2), (" o", 0.2, 0.3), ("'clock.", 0.3, 0.6)],
            [Word("at", 0, 0.2), Word("o'clock.", 0.2, 0.6)],
        ),
        ([("你好", 0.0, 0.4), ("。", 0.4, 0.4)], [Word("你", 0, 0.2), Word("好。", 0.2, 0.4)]),
        ([(" one two", 0.0, None)], [Word("one", 0.0, 6 / 7), Word("two", 8 / 7, 2.0)]),
        ([(" …", 0.0, 0.1)], []),
    ],
)
def test_pieces_become_words(pieces: list[tuple[str, float, float]], words: list[Word]) -> None:
    found = time_words(pieces, 2.0)

    assert [word.text for word in found] == [word.text for word in words]
    for one, other in zip(found, words, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end))


@given(st.lists(st.text(max_size=6), max_size=8))
def test_whatever_is_recognised_its_words_are_in_order(texts: list[str]) -> None:
    pieces = [(text, float(number), float(number + 1)) for number, text in enumerate(texts)]

    found = time_words(pieces, float(len(texts)))

    assert [word.text for word in found] == split_words("".join(texts))
    assert all(word.start <= word.end for word in found)
    assert [word.start for word in found] == sorted(word.start for word in found)
