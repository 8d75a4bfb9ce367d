"""A run on the tiny checkpoint: it learns, and interrupted anywhere it ends at the same numbers."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from omnifleet_shared.errors import InvalidTrainingConfig
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.training.config import TrainConfig
from omnifleet_worker.training.run import train
from omnifleet_worker.training.run_states import RunState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .conftest import MakeConfig

FIXED = {"steps": 20, "validate_every": 10, "unconditional_share": 0.0}
INTERRUPTED = {"steps": 6, "ema": 0.9, "save_every": 2}
DIES_IN_STEP_FOUR = """
import os, signal, sys
from omnifleet_worker.cli import app
from omnifleet_worker.training.flow_matching import FlowMatchingLoss
draw, drawn = FlowMatchingLoss.draw, []
def dying(self, batch):
    drawn.append(batch)
    if len(drawn) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(self, batch)
FlowMatchingLoss.draw = dying
app(["train", sys.argv[1]])
"""


def last_state(config: TrainConfig) -> RunState:
    folder = sorted((config.out / "states").glob("step-*"))[-1]
    optimizer = torch.load(folder / "optimizer.pt", weights_only=True)
    return RunState(int(folder.name.removeprefix("step-")), load_file(folder / "trained.safetensors"), optimizer)


def assert_same(one: object, other: object, place: str = "") -> None:
    """Bit for bit, tensors inside dicts and lists included."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{place}.{number}")
    else:
        assert one == other, place


def assert_same_end(config: TrainConfig, uninterrupted: TrainConfig) -> None:
    found, wanted = last_state(config), last_state(uninterrupted)
    assert found.step == wanted.step == 6
    assert_same(found.weights, wanted.weights)
    assert_same(found.optimizer, wanted.optimizer)
    adapters = [load_file(one.out / "adapter/adapter_model.safetensors") for one in (config, uninterrupted)]
    assert_same(*adapters)


@contextmanager
def signalled_after_a_step(number: int) -> Iterator[None]:
    """Send this process a signal once a training step is logged."""

    class Signals(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if getattr(record, "action", "") == "trained":
                os.kill(os.getpid(), number)

    logger, handler = logging.getLogger("omnifleet_worker.training.trainer"), Signals()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def uninterrupted(make_config: MakeConfig, tmp_path: Path) -> TrainConfig:
    config = make_config(out=str(tmp_path / "uninterrupted"), **INTERRUPTED)
    assert train(config) is None
    return config


def events(config: TrainConfig) -> EventAccumulator:
    found = EventAccumulator(str(config.out / "logs"))
    found.Reload()
    return found


def test_the_loss_of_a_fixed_batch_falls(make_config: MakeConfig, recipe_folder: Path) -> None:
    (line,) = (recipe_folder / "train.jsonl").read_text().splitlines()[:1]
    (recipe_folder / "one.jsonl").write_text(line)
    config = make_config(train=["one.jsonl"], validation=["one.jsonl"], samples={"count": 0}, **FIXED)

    train(config)

    losses = [event.value for event in events(config).Scalars("validation/t2a")]
    assert len(losses) == 3
    assert losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.9 * losses[0]


def test_a_run_shows_losses_by_task_and_samples_to_listen_to(make_config: MakeConfig) -> None:
    config = make_config(validation=["validation.jsonl"], steps=3, validate_every=2)

    train(config)

    log = events(config)
    assert [event.step for event in log.Scalars("train/loss")] == [1, 2, 3]
    assert {tag for tag in log.Tags()["scalars"] if tag.startswith("train/t")} <= {"train/t2a", "train/tts"}
    assert [event.step for event in log.Scalars("validation/add")] == [0, 2, 3]
    rates = [event.value for event in log.Scalars("train/learning_rate")]
    assert rates == pytest.approx([0.005, 0.01, 0.01])
    samples = log.Audio("samples/0-add")
    assert [event.step for event in samples] == [0, 2, 3]
    assert samples[0].encoded_audio_string != samples[2].encoded_audio_string


def test_sigterm_saves_and_the_same_run_goes_on_to_the_same_numbers(
    make_config: MakeConfig, uninterrupted: TrainConfig
) -> None:
    config = make_config(**INTERRUPTED)

    with signalled_after_a_step(signal.SIGTERM):
        stopped_by = train(config)

    assert stopped_by == signal.SIGTERM
    assert last_state(config).step == 1
    assert (config.out / "adapter/adapter_config.json").exists()
    assert train(config) is None
    assert_same_end(config, uninterrupted)


def test_after_kill_9_the_same_command_goes_on_to_the_same_numbers(
    make_config: MakeConfig, uninterrupted: TrainConfig, recipe_folder: Path, tmp_path: Path
) -> None:
    config = make_config(**INTERRUPTED)
    command = [sys.executable, "-c", DIES_IN_STEP_FOUR, str(recipe_folder / f"{tmp_path.name}.yaml")]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}

    died = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    assert died.returncode == -signal.SIGKILL, died.stderr
    assert last_state(config).step == 2
    assert train(config) is None
    assert_same_end(config, uninterrupted)


def test_a_finished_run_goes_on_where_more_steps_are_asked_for(
    make_config: MakeConfig, uninterrupted: TrainConfig
) -> None:
    config = make_config(**INTERRUPTED | {"steps": 3})

    assert train(config) is None
    assert last_state(config).step == 3
    assert train(make_config(**INTERRUPTED)) is None

    assert_same_end(config, uninterrupted)


@pytest.mark.parametrize(("changed", "field"), [({"seed": 1}, "seed"), ({"train": ["validation.jsonl"]}, "train")])
def test_a_run_does_not_go_on_with_another_recipe(
    make_config: MakeConfig, changed: dict[str, object], field: str
) -> None:
    train(make_config(steps=1))

    with pytest.raises(InvalidTrainingConfig) as raised:
        train(make_config(steps=2, **changed))

    assert raised.value.field == field


def test_what_is_encoded_is_not_encoded_again(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    train(make_config(steps=1))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the checkpoint was loaded to encode")

    monkeypatch.setattr(AudioOmniPipeline, "from_pretrained", refuse)

    assert train(make_config(steps=2)) is None


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_its_last_state(make_config: MakeConfig) -> None:
    train(make_config(steps=1, learning_rate=1e30, warmup_steps=0))

    with pytest.raises(InvalidTrainingConfig, match="no finite gradient") as raised:
        train(make_config(steps=9, learning_rate=1e30, warmup_steps=0))

    assert raised.value.field == "learning_rate"
    assert last_state(make_config()).step == 1
