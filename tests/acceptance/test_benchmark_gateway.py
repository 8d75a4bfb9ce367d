"""The gateway's benchmark runs from start to end and reports every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gateway.py"
FIGURES = {"jobs_per_second", "p50_ms", "p99_ms"}


def test_it_reports_all_figures_of_both_ways_and_of_streams() -> None:
    command = [sys.executable, str(SCRIPT), "--jobs", "20", "--streams", "20", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=580)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for way in ("client", "gateway", "ratio"):
        assert set(report[way]) == FIGURES
        assert all(figure > 0 for figure in report[way].values())
    for name in FIGURES:
        assert report["ratio"][name] == pytest.approx(report["gateway"][name] / report["client"][name], abs=0.01)
    assert report["streams"]["streams"] == 20
    assert report["streams"]["first_event_p99_ms"] >= report["streams"]["first_event_p50_ms"] > 0
    assert "memory_each_kib" in report["streams"]
