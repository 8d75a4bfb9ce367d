"""What a worker imports before its memory plan: a checkpoint that is refused is refused at once."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from omnifleet_worker.installation import collector_paused

MODEL_LIBRARIES = ("accelerate", "diffusers", "huggingface_hub", "transformers", "torchvision")
OF_THEIRS = ("librosa", "scipy", "sklearn", "sympy", "torch._dynamo", "torch._inductor")
OF_JOBS = ("jieba", "pypinyin")
PLAN = f"""
import sys, omnifleet_worker.celery
from omnifleet_worker.model_loader import plan_checkpoint
from omnifleet_worker.settings import WorkerSettings
plan_checkpoint(WorkerSettings(checkpoint=sys.argv[1], device="cpu")).check()
print(*[name for name in {MODEL_LIBRARIES + OF_THEIRS + OF_JOBS} if name in sys.modules])
"""


def test_the_plan_is_made_before_the_model_s_libraries_are_imported(checkpoint: Path) -> None:
    loaded = subprocess.run([sys.executable, "-c", PLAN, str(checkpoint)], capture_output=True, text=True, check=True)

    assert loaded.stdout.split() == []


def test_the_collector_runs_again_after_imports() -> None:
    with pytest.raises(ImportError), collector_paused():
        assert not gc.isenabled()
        raise ImportError

    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
