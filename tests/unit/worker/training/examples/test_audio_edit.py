"""The AudioEdit data set is read as it is published: its lists, and its archives without unpacking them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from omnifleet_shared.errors import InvalidTrainingData, MediaEmpty, MediaNotFound
from omnifleet_worker.training.batches import EncodedDataset
from omnifleet_worker.training.examples.data import read_examples
from omnifleet_worker.training.examples.example_encoder import ExampleEncoder
from support.data import media_files

LINES: list[dict[str, Any]] = [
    {"id": 1, "type": "add", "prompt": "Add the sound of 'rain'", "input": "residual/1.wav", "output": "mixed/1.wav"},
    {"id": 1, "type": "remove", "prompt": "Remove 'rain'", "input": "mixed/1.wav", "output": "residual/1.wav"},
    {"id": 1, "type": "extract", "prompt": "Keep 'rain'", "input": "mixed/1.wav", "output": "target/1.wav"},
    {"id": 2, "type": "style_transfer", "prompt": "Rain to wind", "input": "mixed/1.wav", "output": "transfer/a/2.wav"},
    {"id": 3, "prompt": "Rain to wind", "input": "mixed/1.wav", "output": "transfer/a/2.wav"},
]
FILES = {"residual/1.wav": 0.25, "mixed/1.wav": 0.5, "target/1.wav": 0.75, "transfer/a/2.wav": 1.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The set with an archive for each of its folders, and nothing unpacked."""
    for name, seconds in FILES.items():
        archive, _, rest = name.partition("/")
        # One was made inside of its folder, the others around it.
        add(tmp_path / f"{archive}.tar", rest if archive == "target" else name, media_files.wav(seconds, 8_000))
    (tmp_path / "meta_total.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return tmp_path


def add(archive: Path, name: str, data: bytes) -> None:
    with tarfile.open(archive, "a") as members:
        folder = tarfile.TarInfo(str(Path(name).parent))
        folder.type = tarfile.DIRTYPE
        members.addfile(folder)
        member = tarfile.TarInfo(f"./{name}")
        member.size = len(data)
        members.addfile(member, io.BytesIO(data))


def unpacked(folder: Path) -> Path:
    for archive in folder.glob("*.tar"):
        with tarfile.open(archive) as members:
            inside = folder / archive.stem if archive.stem == "target" else folder
            members.extractall(inside, filter="data")
        archive.unlink()
    return folder


def test_its_lists_are_read_as_they_are(folder: Path) -> None:
    examples = read_examples([folder / "meta_total.jsonl"])

    assert [one.line.task for one in examples] == ["add", "remove", "extract", "style", "style"]
    assert [one.line.instruction for one in examples] == [line["prompt"] for line in LINES]
    assert [one.seconds for one in examples] == [0.5, 0.25, 0.75, 1.0, 1.0]


def test_what_is_encoded_is_the_same_packed_and_unpacked(folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    encoder = ExampleEncoder(checkpoint, tmp_path / "cache", torch.device("cpu"), torch.float32)
    packed = [encoder.encode(one) for one in read_examples([folder / "meta_total.jsonl"])[:3]]
    shutil.rmtree(tmp_path / "cache")

    loose = [encoder.encode(one) for one in read_examples([unpacked(folder) / "meta_total.jsonl"])[:3]]

    assert loose == packed
    rows = EncodedDataset(loose, encoder.cache)
    assert all(row.latents.any() for row in (rows[0], rows[1], rows[2]))
    assert not torch.equal(rows[0].context, rows[1].context), "each says its own instruction"


def test_an_archive_that_is_cut_off_is_said(folder: Path) -> None:
    (folder / "mixed.tar").write_bytes(b"no archive")

    with pytest.raises(InvalidTrainingData, match=r"mixed\.tar cannot be read"):
        read_examples([folder / "meta_total.jsonl"])


def test_a_file_that_no_archive_holds_is_named_with_its_line(folder: Path) -> None:
    add(folder / "mixed.tar", "mixed/empty.wav", b"")
    path = folder / "lines.jsonl"

    for name, error in {"mixed/9.wav": MediaNotFound, "mixed/empty.wav": MediaEmpty}.items():
        path.write_text(json.dumps({**LINES[0], "input": name}))
        with pytest.raises(error) as raised:
            read_examples([path])
        assert raised.value.field == "lines.jsonl:1: audio"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"type": "polish"}, "'t2a', 't2m'"), ({"type": 3}, "'t2a', 't2m'"), ({"prompt": ""}, "at least 1 character")],
)
def test_a_line_that_says_nothing_to_learn_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    path = folder / "lines.jsonl"
    path.write_text(json.dumps(LINES[0] | changes))

    with pytest.raises(InvalidTrainingData, match=words) as raised:
        read_examples([path])

    assert str(raised.value.field).startswith("lines.jsonl:1: ")


def test_a_source_may_be_as_much_longer_as_coding_in_frames_makes_it(folder: Path) -> None:
    path = folder / "lines.jsonl"
    (folder / "long.wav").write_bytes(media_files.wav(10.05, 8_000))
    path.write_text(json.dumps({**LINES[0], "input": "long.wav"}))

    assert len(read_examples([path])) == 1
