"""A checkpoint is read ahead while libraries are imported, whatever is in its folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from omnifleet_worker.checkpoint.read_ahead import read_ahead


def test_the_weights_of_every_component_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def note(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_WILLNEED)
        asked.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "posix_fadvise", note)
    for name in ("vae/model.safetensors", "thinker/model-1.safetensors", "thinker/config.json", "card.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"weights")

    read_ahead(tmp_path).join()

    assert asked == ["model-1.safetensors", "model.safetensors"]


def test_a_folder_that_is_not_there_is_left_to_whoever_loads_it(tmp_path: Path) -> None:
    thread = read_ahead(tmp_path / "nothing")
    thread.join()

    assert not thread.is_alive()
