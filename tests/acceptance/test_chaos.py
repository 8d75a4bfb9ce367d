"""A short run of `make chaos`, with one fault of each kind: no job is lost, wrong or done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FAULTS = {
    "broken-device",
    "clock-skew",
    "cut",
    "full-disk",
    "half-open",
    "kill",
    "outage",
    "redis-pause",
    "redis-restart",
    "reply-loss",
    "request-loss",
    "poison",
    "stop",
    "wrong-credentials",
}


def test_every_job_has_exactly_one_right_outcome_whatever_goes_wrong() -> None:
    # With 3 deliveries the run's own kills may hit the same innocent job thrice in a row, which nobody can tell from
    # poison.
    wanted = ["--seconds", "1", "--seed", "7", "--deliveries", "5", "--faults", ",".join(FAULTS)]
    command = [sys.executable, "-m", "chaos", *wanted, "--json"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=560)

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["lost"], report["duplicates"], report["wrong"], report["client_crashes"]) == (0, 0, 0, 0)
    assert (report["quarantined"], report["innocent_in_quarantine"]) == (report["faults"]["poison"]["count"], 0)
    assert report["faults"].keys() == FAULTS
    assert report["jobs"] > 10
    assert report["redeliveries"] >= 1
