"""The manifest of a checkpoint: what it says of files, and what it finds wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_worker.checkpoint.manifest import (
    all_faults,
    check_files,
    read_manifest,
    record_files,
    size_faults,
    write_manifest,
)
from omnifleet_worker.cli import app
from omnifleet_worker.model_loader import load_pipeline
from omnifleet_worker.settings import WorkerSettings
from typer.testing import CliRunner

WEIGHTS = "transformer/model.safetensors"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    root = tmp_path / "checkpoint"
    (root / "transformer").mkdir(parents=True)
    (root / WEIGHTS).write_bytes(os.urandom(100_000))
    (root / "card.json").write_text("{}")
    (root / "vocab.txt").touch()
    write_manifest(root, record_files(root, (path for path in root.rglob("*") if path.is_file())))
    return root


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_it_holds_size_and_hash_by_path(checkpoint: Path) -> None:
    manifest = json.loads((checkpoint / "manifest.json").read_text())

    assert list(manifest) == ["card.json", WEIGHTS, "vocab.txt"]
    data = (checkpoint / WEIGHTS).read_bytes()
    assert manifest[WEIGHTS] == {"bytes": 100_000, "sha256": hashlib.sha256(data).hexdigest()}


def test_an_untouched_checkpoint_has_no_faults(checkpoint: Path) -> None:
    assert all_faults(checkpoint) == {}
    check_files(checkpoint, hashes=True)


def test_a_flipped_byte_shows_in_the_hash_alone(checkpoint: Path) -> None:
    flip_a_byte(checkpoint / WEIGHTS)

    assert all_faults(checkpoint) == {WEIGHTS: "has another SHA-256"}
    check_files(checkpoint)
    with pytest.raises(CheckpointInvalid, match=r"model\.safetensors has another SHA-256"):
        check_files(checkpoint, hashes=True)


def test_a_truncated_file_shows_in_the_size(checkpoint: Path) -> None:
    truncate(checkpoint / WEIGHTS)

    assert all_faults(checkpoint) == {WEIGHTS: "has 99,999 bytes instead of 100,000"}
    with pytest.raises(CheckpointInvalid, match=r"99,999 bytes instead of 100,000") as caught:
        check_files(checkpoint)
    assert caught.value.field == WEIGHTS


def test_several_faults_are_counted(checkpoint: Path) -> None:
    truncate(checkpoint / WEIGHTS)
    (checkpoint / "card.json").unlink()

    manifest = read_manifest(checkpoint)
    assert manifest is not None and size_faults(checkpoint, manifest).keys() == {"card.json", WEIGHTS}
    with pytest.raises(CheckpointInvalid, match="1 more file"):
        check_files(checkpoint)


def test_weights_that_were_added_are_a_fault(checkpoint: Path) -> None:
    (checkpoint / "transformer/diffusion_pytorch_model.safetensors").touch()
    (checkpoint / "README.md").touch()

    assert all_faults(checkpoint) == {"transformer/diffusion_pytorch_model.safetensors": "is not in the manifest"}


def test_without_manifest_only_hashes_are_refused(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()

    check_files(checkpoint)
    with pytest.raises(CheckpointInvalid, match=r"no manifest\.json"):
        check_files(checkpoint, hashes=True)


@pytest.mark.parametrize("text", ["", "[]", '{"a": {"bytes": -1, "sha256": ""}}', '{"a": 1}'])
def test_what_is_no_manifest_is_refused(checkpoint: Path, text: str) -> None:
    (checkpoint / "manifest.json").write_text(text)

    with pytest.raises(CheckpointInvalid, match="is no manifest"):
        check_files(checkpoint)


class TestLoad:
    """`model_index.json` is missing here, which is what loading would come to next."""

    def settings(self, checkpoint: Path, **values: bool) -> WorkerSettings:
        return WorkerSettings(checkpoint=checkpoint, device="cpu", **values)

    def test_compares_sizes_always(self, checkpoint: Path) -> None:
        truncate(checkpoint / WEIGHTS)

        with pytest.raises(CheckpointInvalid, match="99,999 bytes"):
            load_pipeline(self.settings(checkpoint))

    def test_compares_hashes_on_demand(self, checkpoint: Path) -> None:
        flip_a_byte(checkpoint / WEIGHTS)

        with pytest.raises(CheckpointInvalid, match=r"model_index\.json is missing"):
            load_pipeline(self.settings(checkpoint))
        with pytest.raises(CheckpointInvalid, match="another SHA-256"):
            load_pipeline(self.settings(checkpoint, verify_checkpoint=True))


class TestVerify:
    def test_passes(self, checkpoint: Path) -> None:
        result = CliRunner().invoke(app, ["verify", str(checkpoint)])

        assert result.exit_code == 0

    def test_names_every_file_at_fault(self, checkpoint: Path) -> None:
        flip_a_byte(checkpoint / WEIGHTS)
        (checkpoint / "card.json").unlink()

        result = CliRunner().invoke(app, ["verify", str(checkpoint)])

        assert result.exit_code == 1
        assert f"{WEIGHTS} has another SHA-256" in result.stderr
        assert "card.json is missing" in result.stderr
        assert "vocab.txt" not in result.stderr


class TestWriteManifest:
    @pytest.fixture
    def downloaded(self, tmp_path: Path) -> Path:
        folder = tmp_path / "whisper"
        (folder / ".cache").mkdir(parents=True)
        (folder / "nested").mkdir()
        (folder / "compiled").mkdir()
        for path in ("config.json", "nested/model.safetensors", "compiled/h100.bin", ".cache/lock", ".gitattributes"):
            (folder / path).write_text(path)
        (folder / "manifest.json").write_text("an earlier one")
        return folder

    def test_it_lists_what_a_downloaded_folder_holds_and_nothing_hidden_or_compiled(self, downloaded: Path) -> None:
        result = CliRunner().invoke(app, ["write-manifest", str(downloaded)])

        assert result.exit_code == 0, result.stderr
        assert list(read_manifest(downloaded) or {}) == ["config.json", "nested/model.safetensors"]
        assert all_faults(downloaded) == {}

    def test_a_model_that_was_not_converted_can_be_fetched_with_it(self, downloaded: Path, tmp_path: Path) -> None:
        CliRunner().invoke(app, ["write-manifest", str(downloaded)])

        result = CliRunner().invoke(app, ["fetch-checkpoint", f"file://{downloaded}", str(tmp_path / "here")])

        assert result.exit_code == 0, result.stderr
        found = {path.relative_to(tmp_path / "here").as_posix() for path in (tmp_path / "here").rglob("*.*")}
        assert found == {"config.json", "nested/model.safetensors", "manifest.json"}

    def test_an_empty_folder_is_no_model(self, tmp_path: Path) -> None:
        result = CliRunner().invoke(app, ["write-manifest", str(tmp_path)])

        assert isinstance(result.exception, CheckpointInvalid)
        assert not (tmp_path / "manifest.json").exists()
