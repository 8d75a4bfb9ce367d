"""Workers whose device or model broke: the process ends, and its jobs go on elsewhere as if nothing had been."""

from __future__ import annotations

import pytest
from omnifleet import JobHandle, JobQuarantined, TextResult
from omnifleet_worker.lease_renewer import EXIT_BROKEN
from support import services
from support.fork_server import is_alive
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker

STRICT = {"OMNIFLEET_MAX_DELIVERIES": "1", "OMNIFLEET_MAX_ATTEMPTS": "1", "OMNIFLEET_LEASE": "600"}
"""One more start, one more lost worker or one more attempt would be too many, and nobody waits for this lease."""


def ask(scripted: ScriptedFleet, what: str, steps: int = 5) -> JobHandle[TextResult]:
    return scripted.omni.understand(question=what, max_new_tokens=steps)


def pids_in(jobs: list[JobHandle[TextResult]]) -> set[int]:
    return {int(job.result(WAIT).text.rpartition(" ")[2]) for job in jobs}


def end_of(worker: ScriptedWorker) -> dict[str, object]:
    """What a worker said when it stepped aside, once it has ended."""
    worker.wait()
    (end,) = [line for line in worker.lines() if line.get("action") == "out_of_service"]
    return end


def test_a_device_that_breaks_ends_its_process_and_counts_against_no_job(scripted: ScriptedFleet) -> None:
    broken = scripted.start(SCRIPTED_DEVICE_BREAKS="break", **STRICT)
    beside = [ask(scripted, "time", steps=100) for _ in range(4)]
    for job in beside:
        services.wait_until(lambda job=job: job.progress().step > 2, WAIT, "progress")  # type: ignore[misc]

    culprit, later = ask(scripted, "break it"), [ask(scripted, "time") for _ in range(20)]

    end = end_of(broken)
    assert end["exit_code"] == EXIT_BROKEN
    assert "an illegal memory access was encountered" in str(end["reason"])
    other = scripted.start(**STRICT)
    assert pids_in([culprit, *beside, *later]) == {other.pid}


def test_a_worker_whose_model_fails_job_after_job_ends_and_they_go_on_elsewhere(scripted: ScriptedFleet) -> None:
    broken = scripted.start(SCRIPTED_MODEL_FAILS="1", OMNIFLEET_CONCURRENCY="4")
    jobs = [ask(scripted, f"time {number}") for number in range(20)]

    end = end_of(broken)
    assert end["exit_code"] == EXIT_BROKEN
    assert "jobs in a row failed, and its own probe did" in str(end["reason"])
    other = scripted.start()
    assert pids_in(jobs) == {other.pid}


def test_a_job_that_breaks_every_device_is_put_aside_and_takes_nobody_with_it(scripted: ScriptedFleet) -> None:
    poison = ask(scripted, "break it")
    others = [ask(scripted, f"time {number}") for number in range(10)]

    def is_put_aside() -> bool:
        # As Kubernetes would: a worker that ended is started again.
        if not scripted.workers or not is_alive(scripted.workers[-1].pid):
            scripted.start(SCRIPTED_DEVICE_BREAKS="break", ready=False)
        return poison.status().is_final

    services.wait_until(is_put_aside, 3 * WAIT, "an end")

    with pytest.raises(JobQuarantined):
        poison.result(1)
    assert all(job.result(WAIT).text for job in others)
    assert len(scripted.workers) < 12
