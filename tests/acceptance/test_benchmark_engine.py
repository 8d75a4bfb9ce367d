"""The benchmarks of the engine run from start to end and report every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *options: str) -> Any:
    command = [sys.executable, str(BENCHMARKS / script), *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_engine_gives_the_latents_of_the_published_loop_at_every_batch_size() -> None:
    report = run("engine.py", "--size", "tiny", "--batches", "1,2", "--steps", "1")

    assert report["difference"] < 1e-5
    assert [row["batch"] for row in report["engine"]] == [1, 2]
    for row in [report["baseline"], *report["engine"]]:
        assert all(row[figure] > 0 for figure in ("clips_per_second", "p50", "p99", "memory_mb", "matmul_share"))
    assert 0 < report["host_share"] < 1
    assert report["first_step_cold"] > 0 and report["first_step_cached"] > 0
    assert all(times["eager"] > 0 for times in report["step_times"])
    errors = {error["way"]: error["error"] for error in report["errors"]}
    assert errors["published loop"] < errors["float32"] + 1e-5 < 1e-4 < errors["fp8"] < 0.2
    assert report["overlap"]["together"] > 0
    assert report["left_out"] == []


def test_a_mixed_load_is_measured_through_the_whole_fleet() -> None:
    report = run("mixed.py", "--jobs", "6", "--rate", "3", "--steps", "2", "--burst", "2")

    assert report["jobs"] == 6
    assert 0 < report["busy_share"] <= 1
    assert report["fleet_seconds"] > 0
    for namespace in ("understand", "generate", "edit"):
        assert 0 < report["p50"][namespace] <= report["p99"][namespace]
    burst = report["burst"]
    assert burst["clips_alone"] > 0 and burst["answers"] > 0 and burst["clips_mixed"] > 0
    assert burst["ratio"] == pytest.approx(max(burst["answers"], burst["clips_mixed"]) / burst["clips_alone"])


def test_answers_are_measured_in_every_way_and_are_the_same_in_all_of_them() -> None:
    report = run("answers.py", "--size", "tiny", "--answers", "1,3", "--tokens", "4")

    assert set(report["same_tokens"].values()) == {True}
    assert report["attention_error"] < 1e-5
    for times in [*report["token"].values(), report["first_token"], report["encode_prompt"], report["mel_cpu"]]:
        assert all(ms > 0 for ms in times.values())
