"""A small recipe: five examples of one-second sounds, encoded once for all tests of this folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from accelerate.state import AcceleratorState, GradientState
from omnifleet_worker.training.config import TrainConfig, read_config

RATE = 44_100
TRAIN = [
    {"task": "t2a", "text": "a steady tone", "target": "tone.wav", "seconds": 1.0},
    {"task": "extract", "audio": "mix.wav", "text": "the tone", "target": "tone.wav"},
    {"task": "remove", "audio": "mix.wav", "text": "the tone", "target": "noise.wav"},
    {"task": "tts", "text": "beep", "target": "tone.wav", "voice": "tone.wav", "transcript": "hm"},
]
VALIDATION = [{"task": "add", "audio": "tone.wav", "text": "noise", "target": "mix.wav"}]

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """One Accelerator a process is the rule of accelerate; here each test has its own."""
    before = dict(os.environ)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert dict(os.environ) | {"PYTEST_CURRENT_TEST": ""} == before | {"PYTEST_CURRENT_TEST": ""}


@pytest.fixture(scope="session")
def recipe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds and lists of examples, and the cache that tests share."""
    folder = tmp_path_factory.mktemp("recipe")
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    for name, samples in {"tone": tone, "noise": noise, "mix": tone + noise}.items():
        soundfile.write(folder / f"{name}.wav", samples, RATE)
    for name, lines in {"train": TRAIN, "validation": VALIDATION}.items():
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


@pytest.fixture
def make_config(recipe_folder: Path, checkpoint: Path, tmp_path: Path) -> MakeConfig:
    """Write the recipe's YAML file, with some of its values changed, and read it."""

    def make(**changes: Any) -> TrainConfig:
        values = {
            "checkpoint": str(checkpoint),
            "out": str(tmp_path / "run"),
            "train": ["train.jsonl"],
            "cache": "cache",
            "steps": 4,
            "batch_size": 2,
            "buckets": [1.0, 2.5],
            "learning_rate": 0.01,
            "warmup_steps": 2,
            "lora": {"rank": 4, "alpha": 4, "dropout": 0.1},
            "samples": {"count": 1, "steps": 2},
        }
        path = recipe_folder / f"{tmp_path.name}.yaml"
        path.write_text(yaml.safe_dump(values | changes))
        return read_config(path)

    return make
