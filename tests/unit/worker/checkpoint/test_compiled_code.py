"""Compiled code is kept beside the checkpoint, found again by the next process, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omnifleet_worker.checkpoint.compiled_code import CompiledCode

CPU = torch.device("cpu")
COMPILE = """
import sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters
from omnifleet_worker.checkpoint.compiled_code import CompiledCode

code = CompiledCode(Path(sys.argv[1]), torch.device("cpu"), "float32")
print(code.load())
torch.compile(lambda x: (x.sin() * 2 + x.cos()).relu())(torch.ones(32))
print(counters["inductor"]["fxgraph_cache_miss"] + counters["aot_autograd"]["autograd_cache_miss"])
code.save()
"""


def compile_in_new_process(checkpoint: Path, cache: Path) -> list[str]:
    env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", COMPILE, str(checkpoint)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()


def test_the_next_process_compiles_nothing(tmp_path: Path) -> None:
    first = compile_in_new_process(tmp_path, tmp_path / "one-machine")
    second = compile_in_new_process(tmp_path, tmp_path / "another-machine")

    assert first[0] == "False" and int(first[1]) > 0
    assert second == ["True", "0"]


def test_a_damaged_file_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    code = CompiledCode(tmp_path, CPU, "float32")
    code.path.parent.mkdir()
    code.path.write_bytes(b"\x07 not what torch wrote")

    assert not code.load()
    assert "compiled_code_unreadable" in {getattr(record, "action", None) for record in caplog.records}


def test_code_for_another_dtype_is_another_file(tmp_path: Path) -> None:
    assert CompiledCode(tmp_path, CPU, "bfloat16").path != CompiledCode(tmp_path, CPU, "float32").path


def test_a_folder_that_cannot_be_written_to_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "compiled").touch()
    monkeypatch.setattr("torch.compiler.save_cache_artifacts", lambda: (b"code", None))

    CompiledCode(tmp_path, CPU, "float32").save()

    assert "compiled_code_not_kept" in {getattr(record, "action", None) for record in caplog.records}
