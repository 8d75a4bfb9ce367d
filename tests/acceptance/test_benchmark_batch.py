"""The benchmark of batches runs from start to end and reports every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "batch.py"
ROOM = 20.0
"""Megabytes by which a larger batch's process may be larger; a list of its lines would be, many times over."""


def test_it_reports_all_figures() -> None:
    command = [sys.executable, str(SCRIPT), "--jobs", "200", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=580)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["jobs_per_second"]) == {"batch", "group", "ratio"}
    assert set(report["megabytes"]) == {"batch", "tenth", "group"}
    assert all(figure > 0 for figure in (*report["jobs_per_second"].values(), *report["megabytes"].values()))
    assert report["megabytes"]["batch"] < report["megabytes"]["tenth"] + ROOM
    assert report["resume_seconds"] > 0
    assert report["jobs"] == 200
    assert report["cpu"]
