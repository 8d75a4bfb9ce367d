"""Compiled code is kept beside the checkpoint, found again by the next process, and never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from omnifleet_worker.checkpoint.code_files import write_code
from omnifleet_worker.checkpoint.compiled_code import CompiledCode

CPU = torch.device("cpu")


def actions(caplog: pytest.LogCaptureFixture) -> set[Any]:
    return {getattr(record, "action", None) for record in caplog.records}


def test_what_torch_did_not_write_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = CompiledCode(tmp_path, CPU, "float32")
    write_code(code.path, b"\x07 not what torch wrote")

    assert not code.load()
    assert "compiled_code_unreadable" in actions(caplog)


@pytest.mark.parametrize("fault", ["a byte", "cut off", "empty", "of another device"])
def test_a_damaged_file_never_reaches_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    code, reached = CompiledCode(tmp_path, CPU, "float32"), list[bytes]()
    monkeypatch.setattr("torch.compiler.load_cache_artifacts", reached.append)
    write_code(code.path, b"code" * 9)
    data = code.path.read_bytes()
    if fault == "of another device":
        other = CompiledCode(tmp_path, CPU, "bfloat16").path
        write_code(other, b"code" * 9)
        other.replace(code.path)
    else:
        code.path.write_bytes({"a byte": data[:-1] + b"?", "cut off": data[:-5], "empty": b""}[fault])

    assert not code.load()
    assert not reached
    assert "compiled_code_unreadable" in actions(caplog)


def test_code_for_another_dtype_is_another_file(tmp_path: Path) -> None:
    assert CompiledCode(tmp_path, CPU, "bfloat16").path != CompiledCode(tmp_path, CPU, "float32").path


def test_a_folder_that_cannot_be_written_to_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "compiled").touch()
    monkeypatch.setattr("torch.compiler.save_cache_artifacts", lambda: (b"code", None))

    CompiledCode(tmp_path, CPU, "float32").save()

    assert "compiled_code_not_kept" in actions(caplog)
