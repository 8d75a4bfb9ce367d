"""Jobs that kill or hang their workers, alone and among many: real processes, and they alone are put aside."""

from __future__ import annotations

from contextlib import closing

import pytest
from omnifleet import JobQuarantined, JobStatus
from omnifleet_shared.broker.dead_letters import DeadLetters
from support import services
from support.fork_server import is_alive
from support.scripted_fleet import WAIT, ScriptedFleet

WORKERS = 2


def test_a_job_that_kills_workers_is_dead_lettered_and_others_go_on(scripted: ScriptedFleet) -> None:
    poison = scripted.omni.understand(question="die")
    for _ in range(3):
        scripted.start(ready=False).wait()

    scripted.start()

    with pytest.raises(JobQuarantined, match="3 workers in a row"):
        poison.result(WAIT)
    assert scripted.omni.understand(question="time", max_new_tokens=1).result(WAIT).text
    with closing(DeadLetters.connect(scripted.settings)) as letters:
        letter = letters.read(poison.id)
    assert (letter.job.job_id, letter.attempts) == (poison.id, 3)


def test_a_hung_engine_ends_its_process_and_its_jobs_go_on_elsewhere(scripted: ScriptedFleet) -> None:
    limits = {"OMNIFLEET_ENGINE_PATIENCE": "2", "OMNIFLEET_MAX_DELIVERIES": "2"}
    job = scripted.omni.understand(question="hang")
    for _ in range(2):
        hung = scripted.start(ready=False, **limits)
        hung.wait()
        assert "engine_hung" in {line.get("action") for line in hung.lines()}

    scripted.start(**limits)

    with pytest.raises(JobQuarantined, match="2 workers in a row"):
        job.result(WAIT)


def test_exactly_the_poison_is_put_aside_and_its_neighbours_succeed(scripted: ScriptedFleet) -> None:
    jobs = [scripted.omni.understand(question=f"time {number}", max_new_tokens=4) for number in range(30)]
    poison = scripted.omni.understand(question="die", max_new_tokens=4)
    neighbours = jobs + [scripted.omni.understand(question=f"late {n}", max_new_tokens=4) for n in range(10)]

    def all_ended() -> bool:
        # As Kubernetes would: a worker that died is started again.
        living = sum(is_alive(worker.pid) for worker in scripted.workers)
        for _ in range(WORKERS - living):
            scripted.start(ready=False)
        return all(job.status().is_final for job in [poison, *neighbours])

    services.wait_until(all_ended, 3 * WAIT, "an outcome of every job")

    with pytest.raises(JobQuarantined, match="3 workers in a row were lost while they ran it, 2 of them ran it alone"):
        poison.result(1)
    assert {job.status() for job in neighbours} == {JobStatus.SUCCEEDED}
    # Those that ran beside it died with it once, and nobody twice.
    assert {job.result(1).attempts for job in neighbours} == {1, 2}
    with closing(DeadLetters.connect(scripted.settings)) as letters:
        [letter] = letters.all()
    assert (letter.job.job_id, letter.attempts) == (poison.id, 3)
    assert len(scripted.workers) == WORKERS + 3
