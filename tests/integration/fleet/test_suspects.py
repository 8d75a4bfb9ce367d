"""One job that kills its worker, among many that do not: real processes, and the poison alone is put aside."""

from __future__ import annotations

import pytest
from omnifleet import JobQuarantined, JobStatus
from omnifleet_shared.broker.dead_letters import DeadLetters
from support import services
from support.fork_server import is_alive
from support.scripted_fleet import WAIT, ScriptedFleet

WORKERS = 2


@pytest.mark.timeout(360)
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
    letters = DeadLetters.connect(scripted.settings)
    [letter] = letters.all()
    assert (letter.job.job_id, letter.attempts) == (poison.id, 3)
    letters.close()
    assert len(scripted.workers) == WORKERS + 3
