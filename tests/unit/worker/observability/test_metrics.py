"""What is counted of the engine."""

from __future__ import annotations

import time

import pytest
from omnifleet_worker.observability.metrics import WorkerMetrics


def test_busy_is_the_device_and_host_the_thread() -> None:
    metrics = WorkerMetrics()

    metrics.engine.worked("prepare", 1, 0.5, 0.125)
    metrics.engine.hosted(0.25)

    value = metrics.registry.get_sample_value
    assert value("omnifleet_engine_busy_seconds_total") == pytest.approx(0.125)
    assert value("omnifleet_engine_host_seconds_total") == 0.25
    assert value("omnifleet_engine_call_seconds_sum", {"work": "prepare"}) == 0.5


def test_what_the_device_does_side_by_side_counts_once() -> None:
    metrics, start = WorkerMetrics(), time.monotonic()

    for work in ("diffusion", "prepare", "finish"):
        metrics.engine.worked(work, 1, 60.0, 60.0)

    assert metrics.engine.busy_seconds <= 60 + time.monotonic() - start
