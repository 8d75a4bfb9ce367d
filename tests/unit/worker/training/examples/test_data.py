"""What is wrong with a recipe is said by line and field, before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from omnifleet_shared.errors import (
    InvalidTrainingConfig,
    InvalidTrainingData,
    MediaEmpty,
    MediaNotFound,
    MediaTooLong,
    MediaUnreadable,
    OmnifleetError,
)
from omnifleet_worker.training.config import read_config
from omnifleet_worker.training.examples.data import read_examples
from omnifleet_worker.training.run import train
from support.data import media_files

GOOD: dict[str, Any] = {"task": "t2a", "text": "rain", "target": "short.wav"}
EDIT: dict[str, Any] = {"task": "add", "text": "rain", "target": "short.wav", "audio": "short.wav"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Recordings that are right, and others that are not."""
    for name, seconds in {"short": 0.5, "long": 11.0, "middle": 7.0}.items():
        (tmp_path / f"{name}.wav").write_bytes(media_files.wav(seconds, 8_000))
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("no sound at all")
    return tmp_path


def write_lines(folder: Path, *lines: dict[str, Any] | str) -> Path:
    path = folder / "train.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


@pytest.mark.parametrize(
    ("line", "error", "field", "words"),
    [
        ("{", InvalidTrainingData, "", "Invalid JSON"),
        ({**GOOD, "task": "t2x"}, InvalidTrainingData, "task", "'t2a', 't2m'"),
        ({**GOOD, "txt": "rain"}, InvalidTrainingData, "txt", "Extra inputs"),
        ({"task": "t2a", "target": "short.wav"}, InvalidTrainingData, "text", "t2a needs it"),
        ({**GOOD, "audio": "short.wav"}, InvalidTrainingData, "audio", "t2a does not take it"),
        ({**GOOD, "task": "tts", "voice": "short.wav"}, InvalidTrainingData, "transcript", "go together"),
        ({**EDIT, "task": "style"}, InvalidTrainingData, "replaces", "style needs it"),
        ({**GOOD, "seconds": 0}, InvalidTrainingData, "seconds", "greater than 0"),
        ({**GOOD, "seconds": 3.0}, InvalidTrainingData, "seconds", "0.50 s long"),
        ({**GOOD, "target": "nowhere.wav"}, MediaNotFound, "target", "nowhere.wav"),
        ({**EDIT, "audio": "empty.wav"}, MediaEmpty, "audio", "no bytes"),
        ({**GOOD, "target": "text.wav"}, MediaUnreadable, "target", "no audio or video"),
        ({**GOOD, "target": "long.wav"}, MediaTooLong, "target", "11.00 s"),
        ({**EDIT, "audio": "long.wav"}, MediaTooLong, "audio", "10.00 s are allowed"),
        (
            {**GOOD, "task": "vc", "voice": "middle.wav", "transcript": "hm"},
            MediaTooLong,
            "voice",
            "6.00 s are allowed",
        ),
    ],
)
def test_a_wrong_line_is_named_with_its_field(
    folder: Path, line: dict[str, Any] | str, error: type[OmnifleetError], field: str, words: str
) -> None:
    path = write_lines(folder, GOOD, "", line)

    with pytest.raises(error) as raised:
        read_examples([path])

    assert raised.value.field == ("train.jsonl:3: " + field).removesuffix(": ")
    assert words in str(raised.value)


def test_several_wrong_lines_are_told_at_once(folder: Path) -> None:
    path = write_lines(folder, {**GOOD, "task": "t2x"}, GOOD, {**GOOD, "text": ""})

    with pytest.raises(InvalidTrainingData, match="and 1 more lines are wrong") as raised:
        read_examples([path])

    assert [line["field"] for line in raised.value.details["lines"]] == ["train.jsonl:1: task", "train.jsonl:3: text"]


def test_a_voice_takes_its_part_of_the_window(folder: Path) -> None:
    soundfile.write(folder / "voice.wav", [0.0] * 8_000 * 5, 8_000)
    line = {"task": "tts", "text": "hello", "voice": "voice.wav", "transcript": "hm"}

    (fits,) = read_examples([write_lines(folder, {**line, "target": "short.wav"})])

    assert fits.seconds == pytest.approx(5.5)
    with pytest.raises(MediaTooLong, match=r"12\.00 s of the model's window"):
        read_examples([write_lines(folder, {**line, "target": "middle.wav"})])


def test_a_list_without_lines_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidTrainingData, match=r"train\.jsonl: .*holds no example"):
        read_examples([write_lines(folder, "", "  ")])
    with pytest.raises(InvalidTrainingData, match=r"nowhere\.jsonl: .*cannot be read"):
        read_examples([folder / "nowhere.jsonl"])


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        ("checkpoint: [", "config", "is no YAML"),
        ("just words", "config", "TrainConfig"),
        ("checkpoint: c\nout: o\ntrain: [t]", "steps", "Field required"),
        ("checkpoint: c\nout: o\ntrain: [t]\nsteps: 1\nlora: {rank: 0}", "lora.rank", "greater than or equal to 1"),
        ("checkpoint: c\nout: o\ntrain: [t]\nsteps: 1\nlearning_rat: 1", "learning_rat", "Extra inputs"),
    ],
)
def test_a_wrong_configuration_names_its_field(tmp_path: Path, text: str, field: str, words: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)

    with pytest.raises(InvalidTrainingConfig, match=words) as raised:
        read_config(path)

    assert raised.value.field == field


def test_a_configuration_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidTrainingConfig, match="cannot be read"):
        read_config(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("weights", "field"), [({"add": 1.0}, "weights.add"), ({"t2a": 0.0}, "weights")], ids=["no example", "none left"]
)
def test_weights_that_leave_nothing_to_learn_are_refused(folder: Path, weights: dict[str, float], field: str) -> None:
    write_lines(folder, GOOD)
    config = folder / "config.yaml"
    config.write_text(f"checkpoint: nowhere\nout: run\ntrain: [train.jsonl]\nsteps: 1\nweights: {json.dumps(weights)}")

    with pytest.raises(InvalidTrainingConfig) as raised:
        train(read_config(config))

    assert raised.value.field == field
    assert not (folder / "run").exists()
