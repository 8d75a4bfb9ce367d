"""The commands of training, run as their page shows them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import omnifleet_worker.cli
import pytest
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.training.examples.data import read_examples
from support import ROOT, command_lines, markdown
from typer.testing import CliRunner

PAGE = ROOT / "docs/how-to/train.md"


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": ":".join(str(Path(path).absolute()) for path in sys.path)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)


def test_the_commands_of_the_page_train_and_merge(
    checkpoint: Path, recipe_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(
        ROOT / "examples/train",
        tmp_path / "examples/train",
        ignore=shutil.ignore_patterns("run", "sounds", "corpus", "pairs"),
    )
    (tmp_path / "demo-checkpoint").symlink_to(checkpoint)  # in place of the trained one, for the cache of other tests
    (tmp_path / "examples/train/run").mkdir()
    (tmp_path / "examples/train/run/cache").symlink_to(recipe_folder / "cache")  # the sounds are those of other tests
    (recipe_folder / "cache").mkdir(exist_ok=True)
    commands = [one for block in markdown.blocks_of(PAGE) for one in command_lines.commands_of(block.code)]
    _, _, make_sounds, train, merge, make_pairs, rebuild, *_ = commands

    assert run_python(tmp_path, *make_sounds[1:]).returncode == 0
    trained = run_python(tmp_path, "-m", "omnifleet_worker", *train[1:], "--log-format", "json")
    paired, rebuilt = (CliRunner().invoke(omnifleet_worker.cli.app, one[1:]) for one in (make_pairs, rebuild))
    merged = CliRunner().invoke(omnifleet_worker.cli.app, merge[1:])

    assert trained.returncode == 0, trained.stderr
    lines = [json.loads(line) for line in trained.stderr.splitlines() if line.startswith("{")]
    assert [line["step"] for line in lines if line["action"] == "validated"] == [0, 6, 12]
    assert merged.exit_code == 0, merged.output
    assert paired.exit_code == 0, paired.output
    assert len(read_examples([tmp_path / "examples/train/pairs/train.jsonl"])) == 8
    assert "0 pairs were made again" in rebuilt.output
    assert AudioOmniPipeline.from_pretrained(tmp_path / "merged").card["revision"] != "tiny-seed0"
