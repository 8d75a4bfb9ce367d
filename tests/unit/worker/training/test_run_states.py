"""A state is there whole or not at all, and is gone on from under the same recipe alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omnifleet_shared.errors import InvalidTrainingConfig
from omnifleet_worker.training.run_states import RunState, RunStates


def state(step: int) -> RunState:
    return RunState(step, {"w": torch.full((2,), float(step))}, {"adamw": {"state": {0: torch.ones(step)}}})


def test_the_last_state_is_gone_on_from_and_two_are_kept(tmp_path: Path) -> None:
    states = RunStates(tmp_path / "states", {"seed": 0})
    assert states.latest() is None
    for step in (2, 4, 6):
        states.save(state(step))

    latest = states.latest()

    assert latest is not None
    assert (latest.step, latest.weights["w"].tolist()) == (6, [6.0, 6.0])
    assert len(latest.optimizer["adamw"]["state"][0]) == 6
    assert sorted(path.name for path in (tmp_path / "states").iterdir()) == ["step-00000004", "step-00000006"]


def test_a_state_whose_writing_was_cut_off_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = RunStates(tmp_path / "states", {"seed": 0})
    states.save(state(2))
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("no room")))
        with pytest.raises(OSError, match="no room"):
            states.save(state(4))

    latest = states.latest()
    states.save(state(4))

    assert latest is not None and latest.step == 2
    assert (tmp_path / "states/step-00000004/optimizer.pt").exists()


def test_another_recipe_is_refused_and_named(tmp_path: Path) -> None:
    RunStates(tmp_path / "states", {"seed": 0, "lora": {"rank": 4}}).save(state(2))

    with pytest.raises(InvalidTrainingConfig, match="another lora") as raised:
        RunStates(tmp_path / "states", {"seed": 0, "lora": {"rank": 8}}).latest()

    assert raised.value.field == "lora"


def test_two_processes_do_not_train_into_one_folder(tmp_path: Path) -> None:
    one, other = (RunStates(tmp_path / "run/states", {}) for _ in range(2))

    with one.locked(), pytest.raises(InvalidTrainingConfig, match="another process trains into"), other.locked():
        raise AssertionError("it was let in")
    with other.locked():
        assert other.latest() is None
