"""The overhead benchmark runs from start to end and reports every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "overhead.py"
FIGURES = {"jobs_per_second", "p50_ms", "p99_ms"}


def test_it_reports_all_figures_of_both_systems() -> None:
    command = [sys.executable, str(SCRIPT), "--jobs", "20", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=580)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for system in ("omnifleet", "celery", "ratio"):
        assert set(report[system]) == FIGURES
        assert all(figure > 0 for figure in report[system].values())
    for name in FIGURES:
        assert report["ratio"][name] == pytest.approx(report["omnifleet"][name] / report["celery"][name], abs=0.01)
    assert report["jobs"] == 20
    assert report["cpu"]
    assert {"python", "omnifleet", "celery"} <= set(report["versions"])
