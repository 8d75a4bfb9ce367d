"""Files that appear whole or not at all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from omnifleet_shared.atomic_file import write_atomically


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(b"old")

    with write_atomically(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"

    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_bytes(b"old")

    with pytest.raises(RuntimeError), write_atomically(path) as file:
        file.write(b"half")
        raise RuntimeError

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_rights_are_as_asked_for(tmp_path: Path) -> None:
    with write_atomically(tmp_path / "open", mode=0o644):
        pass
    with write_atomically(tmp_path / "closed", mode=0o600):
        pass

    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("open", "closed")] == [0o644, 0o600]


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)

    with write_atomically(path) as file:
        file.write(b"x")

    assert path.read_bytes() == b"x"
