"""The commands of training: loaded when they are called, and run as their page shows them."""

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
from support import ROOT, command_lines, markdown
from typer.testing import CliRunner

PAGE = ROOT / "docs/how-to/train.md"


def run_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": ":".join(str(Path(path).absolute()) for path in sys.path)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=150)


def test_a_serving_worker_loads_nothing_that_trains(tmp_path: Path) -> None:
    code = (
        "import sys, omnifleet_worker.cli, omnifleet_worker.model_loader, omnifleet_worker.service.worker\n"
        "print([name for name in sys.modules if name.startswith(('omnifleet_worker.training.', 'tensorboard'))])"
    )

    done = run_python(tmp_path, "-c", code)

    assert done.stdout.strip() == "['omnifleet_worker.training.cli']", done.stderr


def test_the_commands_of_the_page_train_and_merge(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(
        ROOT / "examples/train", tmp_path / "examples/train", ignore=shutil.ignore_patterns("run", "sounds")
    )
    (tmp_path / "tiny-checkpoint").symlink_to(checkpoint)  # what the first command writes
    blocks = [block for block in markdown.blocks_of(PAGE) if "train merge" in block.code]
    _, make_sounds, train, merge = command_lines.commands_of(blocks[0].code)

    assert run_python(tmp_path, *make_sounds[1:]).returncode == 0
    trained = run_python(tmp_path, "-m", "omnifleet_worker", *train[1:], "--log-format", "json")
    merged = CliRunner().invoke(omnifleet_worker.cli.app, merge[1:])

    assert trained.returncode == 0, trained.stderr
    lines = [json.loads(line) for line in trained.stderr.splitlines() if line.startswith("{")]
    assert [line["step"] for line in lines if line["action"] == "validated"] == [0, 10, 20]
    assert merged.exit_code == 0, merged.output
    assert AudioOmniPipeline.from_pretrained(tmp_path / "merged").card["revision"] != "tiny-seed0"


def test_a_wrong_line_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("checkpoint: c\nout: o\ntrain: [train.jsonl]\nsteps: 1\n")
    (tmp_path / "train.jsonl").write_text('{"task": "t2x", "target": "a.wav"}\n')

    done = run_python(tmp_path, "-m", "omnifleet_worker", "train", "config.yaml")

    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("InvalidTrainingData train.jsonl:1: task: Input should be 't2a'")
