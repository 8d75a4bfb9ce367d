"""A short run of `make chaos`: no job is lost, wrong or done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)  # half a minute of chaos, after torch was imported on a busy machine
def test_every_job_has_exactly_one_right_outcome() -> None:
    command = [sys.executable, "-m", "chaos", "--seconds", "30", "--workers", "2", "--seed", "7", "--json"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["lost"], report["duplicates"], report["wrong"]) == (0, 0, 0)
    assert report["jobs"] > 10
    assert report["kills"] >= 1
    assert report["redeliveries"] >= 1
