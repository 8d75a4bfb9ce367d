"""Vocabulary and prompts out of a clone that is read and never run."""

from __future__ import annotations

from pathlib import Path

import pytest
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_worker.checkpoint.published.code import read_prompts, read_vocab
from support.data.published_folders import PROMPTS

SYSTEM = {
    "EDITING": "Edit it.",
    "T2A": "Make a sound.",
    "T2M": "Make music.",
    "TTS": "Say it.",
    "UNDERSTANDING": "Answer.",
    "V2A": "Watch, make a sound.",
    "V2M": "Watch, make music.",
}
EDIT = {
    "Add": "Add {desc}.",
    "Remove": "Remove {desc}.",
    "Extract": "Extract {desc}.",
    "Style": "Make {target} of {source}.",
}
SINGLE = "\n".join(
    [
        *(f"SYSTEM_{name} = {text!r}" for name, text in SYSTEM.items()),
        *(f"{name.upper()}_TEMPLATE = {text!r}" for name, text in EDIT.items()),
    ]
)
DICTS = f"""
EDITING = {SYSTEM["EDITING"]!r}
_OTHERS = {SYSTEM!r}
SYSTEM_PROMPTS = {{"EDITING": EDITING, **_OTHERS, {", ".join(f"{k!r}: {v!r}" for k, v in list(SYSTEM.items())[1:])}}}
PROMPTS = {{"edit": {EDIT!r}, "transcribe": {{"system": "You transcribe.", "user": "Transcribe this."}}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "prompts.py"


class TestPrompts:
    @pytest.mark.parametrize("text", [PROMPTS, SINGLE, DICTS], ids=["mixed", "single", "dicts"])
    def test_are_told_apart_by_the_words_of_their_names(self, file: Path, text: str) -> None:
        file.write_text(text)

        prompts = read_prompts(file)

        assert prompts["system"] == SYSTEM
        assert prompts["edit"] == EDIT

    @pytest.mark.parametrize("text", [PROMPTS, DICTS])
    def test_for_transcribing_are_the_published_ones(self, file: Path, text: str) -> None:
        file.write_text(text)

        assert read_prompts(file)["transcribe"] == {"system": "You transcribe.", "user": "Transcribe this."}

    def test_for_transcribing_have_a_substitute(self, file: Path, caplog: pytest.LogCaptureFixture) -> None:
        file.write_text(SINGLE)

        assert all(read_prompts(file)["transcribe"].values())
        assert "this project's own" in caplog.text

    def test_code_is_passed_over_and_never_run(self, file: Path, tmp_path: Path) -> None:
        touch = f"__import__('pathlib').Path({str(tmp_path / 'was-run')!r}).touch()"
        file.write_text(f"{touch}\nSYSTEM_EXTRA = [{touch}]\nif {touch}:\n    raise SystemExit\n{PROMPTS}")

        assert read_prompts(file)["system"] == SYSTEM
        assert not (tmp_path / "was-run").exists()

    def test_that_would_have_to_be_computed_are_not_there(self, file: Path) -> None:
        file.write_text(PROMPTS.replace('SYSTEM_TTS = "Say it."', 'SYSTEM_TTS = open("/etc/passwd").read()'))

        with pytest.raises(CheckpointInvalid, match=r"no constant for SYSTEM_TTS; constants found: .*SYSTEM_T2A"):
            read_prompts(file)

    def test_that_are_there_twice_are_refused(self, file: Path) -> None:
        file.write_text(PROMPTS + '\nEXTRACT_TEMPLATES = {"x": "Take {desc}."}\nMY_OWN_EXTRACT = "Keep {desc}."')

        with pytest.raises(CheckpointInvalid, match="several constants for EDIT_EXTRACT") as caught:
            read_prompts(file)
        assert caught.value.field == "EDIT_EXTRACT"

    @pytest.mark.parametrize("sentence", ["Add it.", "Add {thing}.", "Add {desc} to {source}.", "Add {desc"])
    def test_of_edits_have_the_places_to_fill_in(self, file: Path, sentence: str) -> None:
        file.write_text(PROMPTS.replace("Add {desc}.", sentence))

        with pytest.raises(CheckpointInvalid, match=r"EDIT_ADD has not \{desc\} to fill in"):
            read_prompts(file)

    @pytest.mark.parametrize("data", [b"SYSTEM_T2A = (", b"\x00", b"\xff\xfe", b""])
    def test_that_are_no_python_are_refused(self, file: Path, data: bytes) -> None:
        file.write_bytes(data)

        with pytest.raises(CheckpointInvalid):
            read_prompts(file)


class TestVocab:
    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_is_one_token_a_line(self, tmp_path: Path, end: str) -> None:
        path = tmp_path / "vocab.txt"
        path.write_bytes(end.join([" ", "a", "\u3000", "ni3", ""]).encode())

        assert read_vocab(path, 4) == [" ", "a", "\u3000", "ni3"]

    @pytest.mark.parametrize("data", [b" \na\n", b"a\n \nb\n", b" \n\xff\nb\n", b""])
    def test_that_is_another_is_refused(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "vocab.txt"
        path.write_bytes(data)

        with pytest.raises(CheckpointInvalid) as caught:
            read_vocab(path, 3)
        assert caught.value.field == "vocab.txt"
