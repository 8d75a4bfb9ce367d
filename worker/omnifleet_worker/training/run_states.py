"""States of a run on disk: what the next step follows from, whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from omnifleet_shared.errors import InvalidTrainingConfig
from safetensors.torch import load_file, save_file
from torch import Tensor

_KEPT = 2
_FACTS, _WEIGHTS, _OPTIMIZER = "state.json", "trained.safetensors", "optimizer.pt"


@dataclass(frozen=True)
class RunState:
    """Everything that the steps so far left behind. What a step draws follows from the seed and its number.

    Attributes:
        step: steps done.
        weights: trained ones by name.
        optimizer: its state dict, and that of the averaged weights where there are any.
    """

    step: int
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]


class RunStates:
    """The states of one run, each in a folder of its own.

    Args:
        folder: made if need be.
        facts: what all of them must have been computed from: recipe, data, processes.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._folder = folder
        self._facts = json.loads(json.dumps(facts))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from the run. Raises InvalidTrainingConfig where one is at it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            problem = f"another process trains into {self._folder.parent}"
            raise InvalidTrainingConfig(problem, "out", "Wait for it, or train into another folder") from error
        try:
            yield
        finally:
            lock.release()

    def save(self, state: RunState) -> None:
        """Write a state, unless it is there; it appears in one step. The oldest ones go."""
        place, part = (self._folder / f"{name}-{state.step:08}" for name in ("step", ".part"))
        if place.exists():
            return
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file({name: weight.detach().cpu().contiguous() for name, weight in state.weights.items()}, part / _WEIGHTS)
        torch.save(dict(state.optimizer), part / _OPTIMIZER)
        (part / _FACTS).write_text(json.dumps({"step": state.step, **self._facts}, indent=2) + "\n")
        part.rename(place)
        for old in self._whole()[:-_KEPT]:
            shutil.rmtree(old)

    def latest(self) -> RunState | None:
        """The last whole state; None for a new run.

        Raises:
            InvalidTrainingConfig: it was computed from something else; the error names what differs.
        """
        whole = self._whole()
        if not whole:
            return None
        facts = json.loads((whole[-1] / _FACTS).read_bytes())
        step = facts.pop("step")
        differing = sorted(_differences(facts, self._facts))
        if differing:
            problem = f"{self._folder.parent} holds a run with another {', '.join(differing)}"
            raise InvalidTrainingConfig(problem, differing[0], "Train into another folder, or put the old value back")
        optimizer = torch.load(whole[-1] / _OPTIMIZER, weights_only=True, map_location="cpu")
        return RunState(step, load_file(whole[-1] / _WEIGHTS), optimizer)

    def _whole(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in one.keys() | other.keys() if one.get(name) != other.get(name)]
