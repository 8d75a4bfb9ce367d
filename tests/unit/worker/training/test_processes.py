"""Several processes of one run, as `accelerate launch` starts them: they learn what one would, and write it once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from omnifleet_worker.training.config import TrainConfig
from omnifleet_worker.training.run import train
from safetensors.torch import load_file
from support import ROOT, command_lines, markdown, processes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .conftest import MakeConfig

RECIPE = {"validation": ["validation.jsonl"], "steps": 4, "validate_every": 2, "ema": 0.9, "samples": {"count": 0}}
NOTED = ("resumed", "saved")
SIGNALLED_IN_STEP_TWO = """
import os, signal, sys
from omnifleet_worker.cli import app
from omnifleet_worker.training.flow_matching import FlowMatchingLoss
draw, drawn = FlowMatchingLoss.draw, []
def signalled(self, batch):
    drawn.append(batch)
    if len(drawn) == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return draw(self, batch)
FlowMatchingLoss.draw = signalled
app(sys.argv[1:])
"""


def launch_command() -> list[str]:
    """The page's command for several processes up to the module, for two of them."""
    blocks = markdown.blocks_of(ROOT / "docs/how-to/train.md")
    commands = [command for block in blocks for command in command_lines.commands_of(block.code)]
    (shown,) = [command for command in commands if command[0] == "accelerate"]
    command = shown[: shown.index("--module")]
    command[command.index("--num_processes") + 1] = "2"
    return [*command, "--main_process_port", str(processes.free_port())]


@contextmanager
def children_killed(launcher: processes.Process) -> Iterator[None]:
    """Leave no process of the launcher's behind where the block fails: each is a session of its own."""
    try:
        yield
    except BaseException:
        for child in psutil.Process(launcher.process.pid).children(recursive=True):
            child.kill()
        raise


def run_two(script: Sequence[str | Path], config: Path, log: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit code of the launcher, and what the processes logged."""
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [*launch_command(), *script, "train", config, "--log-format", "json"]
    with processes.process(command, log, environment) as launcher, children_killed(launcher):
        code = launcher.process.wait(timeout=600)
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith('{"')]
    return code, [json.loads(line) for line in lines]


def scalars(config: TrainConfig, tag: str) -> dict[int, float]:
    found = EventAccumulator(str(config.out / "logs"))
    found.Reload()
    return {event.step: event.value for event in found.Scalars(tag)}


def test_two_processes_learn_what_one_does_from_the_same_batches_also_after_an_end_between(
    make_config: MakeConfig, recipe_folder: Path, tmp_path: Path
) -> None:
    one = make_config(**RECIPE, out=str(tmp_path / "one"), gradient_accumulation=2)
    train(one)
    two = make_config(**RECIPE, gradient_accumulation=1)
    config, script = recipe_folder / f"{tmp_path.name}.yaml", tmp_path / "signalled.py"
    script.write_text(SIGNALLED_IN_STEP_TWO)

    stopped, before = run_two([script], config, tmp_path / "stopped.log")
    states = sorted(path.name for path in (two.out / "states").glob("step-*"))
    done, after = run_two(["--module", "omnifleet_worker"], config, tmp_path / "done.log")

    assert stopped != 0
    assert states == ["step-00000002"], before
    assert done == 0, after
    assert [line["action"] for line in before + after if line["action"] in NOTED] == ["saved", "resumed", "saved"]
    assert len(list((two.out / "logs").iterdir())) == 2  # a file of each launch, of its first process alone
    learned, wanted = (load_file(run.out / "states/step-00000004/trained.safetensors") for run in (two, one))
    for name, weight in wanted.items():
        torch.testing.assert_close(learned[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    for tag in ("train/loss", "train/gradient_norm", "validation/add"):
        assert scalars(two, tag) == pytest.approx(scalars(one, tag), rel=1e-4)
