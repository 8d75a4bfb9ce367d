"""`omnifleet-worker verify --parity`: a conversion gives the published numbers, or is told which it does not."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omnifleet_worker.checkpoint.convert import Conversion
from omnifleet_worker.checkpoint.published.files import PublishedFiles
from omnifleet_worker.cli import app
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from support.data.published_folders import write_code, write_processor
from typer.testing import CliRunner, Result

from .conftest import shown_vocab
from .weights import DATA, tiny_thinker_config, write_published, write_published_synchformer

log = logging.getLogger(__name__)


def write_number(name: str, folder: Path) -> None:
    save_file({name: torch.zeros(1)}, folder / "units.safetensors")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PublishedFiles]:
    """The tiny checkpoint as it would be published, whose numbers the parity files are."""
    home = tmp_path_factory.mktemp("published")
    write_published(home / "model.ckpt")
    write_published_synchformer(home / "synchformer_state_dict.pth")
    shutil.copy(DATA / "tiny_config.json", home / "Audio-Omni.json")
    code = write_code(home / "code")
    texts: list[dict[str, Any]] = json.loads((DATA / "speech_tokens.json").read_text())
    (code / "audio_omni/data/vocab.txt").write_text("\n".join(shown_vocab(texts)) + "\n")
    yield PublishedFiles.find(home, code, write_processor(home / "qwen"))
    shutil.rmtree(home)


def convert(files: PublishedFiles, out: Path, dtype: torch.dtype | None = None) -> Path:
    progress = Progress(disable=True)
    Conversion(files=files, out=out, dtype=dtype, progress=progress, thinker_config=tiny_thinker_config()).run()
    return out


@pytest.fixture(scope="module")
def checkpoint(files: PublishedFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert(files, tmp_path_factory.mktemp("converted") / "checkpoint")


@pytest.fixture
def numbers(tmp_path: Path) -> Path:
    """A copy of what the published implementation gave, that a test may change; without the slow video encoder."""
    shutil.copytree(DATA, tmp_path / "numbers", ignore=shutil.ignore_patterns("synchformer.safetensors"))
    return tmp_path / "numbers"


def verify(checkpoint: Path, numbers: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["verify", str(checkpoint), "--parity", str(numbers), *options])


def test_a_conversion_gives_all_published_numbers(checkpoint: Path) -> None:
    done = verify(checkpoint, DATA)

    assert done.exit_code == 0, done.output
    assert "gives all 26 published numbers" in done.stderr
    assert "case_tts_voice latents.steps4.cfg7: agrees" in done.stderr
    assert "synchformer sync.features: agrees" in done.stderr


def test_a_number_that_is_another_one_is_named(checkpoint: Path, numbers: Path) -> None:
    published = load_file(numbers / "units.safetensors")
    save_file(published | {"sync.video": published["sync.video"] * 1.01}, numbers / "units.safetensors")

    done = verify(checkpoint, numbers)

    assert done.exit_code == 1
    assert "units sync.video: DOES NOT AGREE" in done.stderr
    assert "1 of 25 numbers are not the published ones" in done.stderr
    assert verify(checkpoint, numbers, "--within", "0.05").exit_code == 0


def test_weights_that_are_stored_rounded_are_allowed_their_rounding(
    files: PublishedFiles, numbers: Path, tmp_path: Path
) -> None:
    done = verify(convert(files, tmp_path / "rounded", torch.bfloat16), numbers)

    assert done.exit_code == 0, done.output
    log.info("stored as bfloat16:\n%s", done.stderr)
    assert "case_t2a velocity.t0.73.cfg7: agrees" in done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: [path.unlink() for path in folder.glob("*.safetensors")], "holds no published numbers"),
        (lambda folder: (folder / "cases.json").unlink(), "cases.json"),
        (lambda folder: (folder / "units.safetensors").write_bytes(b"<html>"), "cannot be read"),
        (partial(write_number, "talker.1"), "nobody knows"),
        (partial(write_number, "omni.57"), "[57, 768]"),
    ],
)
def test_what_are_no_numbers_of_this_model_is_refused(checkpoint: Path, numbers: Path, change: Any, said: str) -> None:
    for path in numbers.glob("case_*"):
        if said != "cases.json":
            path.unlink()
    change(numbers)

    done = verify(checkpoint, numbers)

    assert done.exit_code != 0
    assert said in f"{done.output} {done.exception}"
