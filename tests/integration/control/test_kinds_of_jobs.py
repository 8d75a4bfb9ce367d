"""Places by kind of job in a real worker: what is sent last is done at once, where it has a place of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from omnifleet import JobStatus
from omnifleet.handle import JobHandle
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet

PLACES = 2
LONG = 250
"""Most steps of a clip."""
LONG_ANSWER = 2000


def clip(scripted: ScriptedFleet, steps: int = 1) -> JobHandle[Any]:
    return scripted.omni.generate("t2a", "rain", seconds=1, steps=steps)


def answer(scripted: ScriptedFleet, tokens: int = 1) -> JobHandle[Any]:
    return scripted.omni.understand(question="what is it", max_new_tokens=tokens)


def count(jobs: list[JobHandle[Any]], status: JobStatus) -> int:
    return [job.status() for job in jobs].count(status)


@pytest.mark.parametrize(
    ("fill", "long", "other"), [(clip, LONG, answer), (answer, LONG_ANSWER, clip)], ids=["clips", "answers"]
)
def test_a_job_does_not_wait_for_those_of_the_other_kind(
    scripted: ScriptedFleet,
    fill: Callable[[ScriptedFleet, int], JobHandle[Any]],
    long: int,
    other: Callable[[ScriptedFleet, int], JobHandle[Any]],
) -> None:
    worker = scripted.start(OMNIFLEET_CONCURRENCY=str(PLACES), SCRIPTED_STEP_SECONDS="0.5")
    filling = [fill(scripted, long) for _ in range(PLACES)]
    services.wait_until(lambda: count(filling, JobStatus.RUNNING) == PLACES, WAIT, "all places of that kind full")
    waiting = [fill(scripted, long) for _ in range(3 * PLACES)]

    last = [other(scripted, 1) for _ in range(3 * PLACES)]

    assert all(job.result(WAIT) for job in last)
    assert count(filling, JobStatus.RUNNING) == PLACES
    assert count(waiting, JobStatus.QUEUED) == 3 * PLACES
    assert worker.metrics().value("omnifleet_worker_places") == 2 * PLACES


def test_with_both_kinds_waiting_everything_is_done(scripted: ScriptedFleet) -> None:
    scripted.start(OMNIFLEET_CONCURRENCY="1", SCRIPTED_STEP_SECONDS="0.01")

    jobs = [send(scripted, 2) for _ in range(8) for send in (clip, answer)]

    assert all(job.result(WAIT) for job in jobs)
