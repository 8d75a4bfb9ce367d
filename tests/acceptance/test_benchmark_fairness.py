"""The benchmark of fairness runs from start to end, and small tenants wait less than behind everybody else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fairness"


def test_it_reports_all_figures() -> None:
    command = [sys.executable, str(SCRIPT), "--greedy", "80", "--each", "1", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=580)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for row in (report["without"], report["fair"]):
        assert (row["small"]["jobs"], row["greedy"]["jobs"]) == (9, 80)
        assert 0 < row["greedy"]["p50"] <= row["greedy"]["p99"] < row["seconds"]
    assert report["ratio"] == pytest.approx(report["fair"]["small"]["p99"] / report["without"]["small"]["p99"])
    assert report["ratio"] < 1
