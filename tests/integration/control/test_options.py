"""The options of `celery worker`: each is carried out, or refused with the reason before anything starts."""

from __future__ import annotations

import pytest
from omnifleet import JobStatus
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet

REFUSED = {
    ("--autoscale", "4,1"): "--autoscale is not for this worker: one process is one GPU",
    ("--beat",): "--beat is not for this worker: run celery beat as a process of its own",
    ("--max-tasks-per-child", "5"): "--max-tasks-per-child is not for this worker",
    ("--max-memory-per-child", "5"): "OMNIFLEET_HOST_MEMORY limits its memory",
    ("--time-limit", "5"): "send jobs with a deadline",
    ("--soft-time-limit", "5"): "send jobs with a deadline",
    ("--statedb", "state.db"): "kept in Redis",
    ("--prefetch-multiplier", "4"): "--prefetch-multiplier is not for this worker",
    ("-P", "prefork"): "omnifleet runs with --pool threads",
    ("-P", "solo"): "omnifleet runs with --pool threads",
    ("-c", "2000"): "a worker holds 1 to 1024 jobs of a kind at once",
    ("-Q", "other"): "this worker serves audio-omni alone, not other",
    ("-Q", "audio-omni,other"): "this worker serves audio-omni alone, not other",
    ("-X", "audio-omni"): "this worker serves audio-omni alone, not none",
}


@pytest.mark.parametrize("options", REFUSED, ids=" ".join)
def test_an_option_that_is_not_carried_out_is_refused_in_one_line(
    scripted: ScriptedFleet, options: tuple[str, ...]
) -> None:
    worker = scripted.start(*options, ready=False)

    worker.wait()

    log = worker.log.read_text()
    assert REFUSED[options] in log.replace("\n", " ")
    assert "worker_started" not in log


def test_a_worker_holds_as_many_jobs_as_its_option_says_and_lives(scripted: ScriptedFleet) -> None:
    worker = scripted.start("-c", "2", "-P", "threads", OMNIFLEET_POLL_PATIENCE="4")
    jobs = [scripted.omni.understand(question=f"number {number}", max_new_tokens=120) for number in range(3)]

    services.wait_until(lambda: [job.status() for job in jobs].count(JobStatus.RUNNING) == 2, WAIT, "two jobs")

    assert worker.metrics().value("omnifleet_worker_places") == 4  # two of each kind
    assert sorted(job.status().value for job in jobs) == ["queued", "running", "running"]
    assert all(job.result(WAIT).text.endswith(f"by {worker.pid}") for job in jobs)


def test_a_worker_logs_into_the_file_of_its_option(scripted: ScriptedFleet) -> None:
    log = scripted.folder / "of-the-option.log"

    worker = scripted.start("-f", str(log))

    assert '"action": "worker_started"' in log.read_text()
    assert "worker_started" not in worker.log.read_text()
