"""The benchmark of streams runs from start to end and reports every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "streaming.py"


def test_it_reports_all_figures() -> None:
    command = [sys.executable, str(SCRIPT), "--steps", "2", "--runs", "1", "--json"]

    done = subprocess.run(command, capture_output=True, text=True, timeout=580)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    music, speech, answer, over_http = report["rows"].values()
    assert (music["parts"], report["steps"], bool(report["cpu"])) == (6, 2, True)
    assert speech["parts"] >= 4
    assert answer["parts"] >= 1
    assert over_http["parts"] == speech["parts"]
    for row in (music, speech, answer, over_http):
        assert 0 < row["first"] <= row["end"]
        assert row["whole"] > 0
