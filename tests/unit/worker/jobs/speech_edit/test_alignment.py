"""Words get their times from a CTC model: the arithmetic on made-up emissions, the rest on a tiny random Wav2Vec2."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidJob
from omnifleet_worker.jobs.speech_edit.alignment import ALIGNER_RATE, CtcAligner, place_words
from omnifleet_worker.jobs.speech_edit.words import Word, split_words
from safetensors.torch import load_file, save_file
from support.data.aligner_folder import write_tiny_aligner


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_aligner(tmp_path_factory.mktemp("aligner"))


@pytest.fixture(scope="module")
def aligner(folder: Path) -> CtcAligner:
    return CtcAligner.from_pretrained(folder)


def wave(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(round(seconds * ALIGNER_RATE)).astype(np.float32)


def assert_well_formed(words: list[Word], texts: list[str], seconds: float) -> None:
    assert [word.text for word in words] == texts
    assert all(0 <= word.start < word.end <= seconds + 1e-9 for word in words)
    assert all(one.end <= following.start + 1e-9 for one, following in pairwise(words))


def emission(spelling: str, alphabet: str) -> torch.Tensor:
    """Log-probabilities that all but say `spelling`, a frame a character; the alphabet's first is the blank."""
    likely = torch.full((len(spelling), len(alphabet)), -9.0)
    likely[torch.arange(len(spelling)), torch.tensor([alphabet.index(one) for one in spelling])] = 0.0
    return likely.log_softmax(-1)


def test_words_lie_where_their_letters_are_likely() -> None:
    said = emission("--hhi--|-yoo-u--", "-|hiyou")
    times = torch.arange(len(said) + 1, dtype=torch.float64) / 50

    words = place_words(["hi", "you"], [0, 0, -1, 1, 1, 1], [2, 3, 1, 4, 5, 6], said, times, blank=0)

    assert words == [Word("hi", 0.04, 0.1), Word("you", 0.18, 0.28)]


def test_letters_twice_need_a_blank_between_them() -> None:
    said = emission("-oo-o-", "-o")
    times = torch.arange(len(said) + 1, dtype=torch.float64)

    assert place_words(["oo"], [0, 0], [1, 1], said, times, blank=0) == [Word("oo", 1, 5)]
    with pytest.raises(InvalidJob, match=r"more than 2\.0 s can hold"):
        place_words(["oo"], [0, 0], [1, 1], said[:2], times[:3], blank=0)


@pytest.mark.parametrize(
    ("transcript", "texts"),
    [
        ("Hello, world!", ["Hello,", "world!"]),
        ("你好。", ["你", "好。"]),
        ("In 1984 it’s 9 o'clock", ["In", "1984", "it’s", "9", "o'clock"]),
        ("привет", ["привет"]),
    ],
)
def test_every_word_gets_a_place_in_order(aligner: CtcAligner, transcript: str, texts: list[str]) -> None:
    assert_well_formed(aligner.align(wave(1.5), transcript), texts, 1.5)


def test_a_long_recording_is_read_in_pieces(aligner: CtcAligner) -> None:
    sentence = "some words that are said one after the other " * 5

    words = aligner.align(wave(61.3), sentence)

    assert_well_formed(words, split_words(sentence), 61.3)
    assert words[-1].end > 31


def test_pieces_join_without_a_gap(aligner: CtcAligner) -> None:
    rows, times = aligner._listen(wave(61.3))

    steps = torch.diff(times)
    assert len(times) == len(rows) + 1
    assert steps.min() > 0
    assert steps.max() < 0.05
    assert float(times[-1]) == pytest.approx(61.3)


@pytest.mark.parametrize("transcript", ["", " ... !"])
def test_a_transcript_without_words_is_refused(aligner: CtcAligner, transcript: str) -> None:
    with pytest.raises(InvalidJob, match="no words are heard"):
        aligner.align(wave(1.0), transcript)


@pytest.mark.parametrize("seconds", [0.0001, 0.02, 0.1])
def test_more_words_than_the_recording_can_hold_are_refused(aligner: CtcAligner, seconds: float) -> None:
    with pytest.raises(InvalidJob, match="words were heard, more than") as caught:
        aligner.align(wave(seconds), "much too much for so short a moment")

    assert caught.value.field == "audio"


def test_a_folder_without_a_model_is_refused_by_its_setting(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="cannot be loaded") as caught:
        CtcAligner.from_pretrained(tmp_path / "nowhere")

    assert caught.value.field == "OMNIFLEET_ALIGNER"


def test_a_model_that_was_never_trained_to_spell_is_refused(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    headless = {name: tensor for name, tensor in weights.items() if not name.startswith("lm_head")}
    save_file(headless, tmp_path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(CheckpointInvalid, match="no speech recogniser with CTC"):
        CtcAligner.from_pretrained(tmp_path)
