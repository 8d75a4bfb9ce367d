"""The log of a real worker process: whose line a line is, whoever wrote it."""

from __future__ import annotations

import signal
from typing import Any

from omnifleet import Client
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker

PROMPT = "a sound that stays private"


def lines_of(worker: ScriptedWorker, job_id: str) -> list[dict[str, Any]]:
    """The lines of a job, once the last one is there."""

    def found() -> list[dict[str, Any]]:
        return [line for line in worker.lines() if line.get("job_id") == job_id]

    services.wait_until(lambda: any(line.get("action") == "job_done" for line in found()), WAIT, "the job's last line")
    return found()


def test_every_line_of_a_job_s_life_says_whose_it_is(scripted: ScriptedFleet) -> None:
    worker = scripted.start()
    jobs = [scripted.omni.generate("t2a", PROMPT, steps=2) for _ in range(3)]
    for job in jobs:
        job.result(WAIT)

    for job in jobs:
        lines = lines_of(worker, job.id)
        assert [line["stage"] for line in lines] == ["begin", "begin"]
        assert [line["attempt"] for line in lines] == [1, 1]
        assert {line["worker"].rpartition(":")[2] for line in lines} == {str(worker.pid)}
        assert [line.get("action") for line in lines] == ["job_started", "job_done"]
    others = [line for line in worker.lines() if line.get("job_id") is None]
    assert others
    assert all("stage" not in line and "worker" in line for line in others)
    # No line that names a job is without its fields.
    ids = {job.id for job in jobs}
    assert [line for line in others if any(job_id in line["message"] for job_id in ids)] == []


def test_lines_of_libraries_belong_to_the_job_that_called_them(
    scripted: ScriptedFleet, s3_server: services.S3Server, bucket: str
) -> None:
    endpoint = {"OMNIFLEET_S3_ENDPOINT": s3_server.endpoint, **s3_server.environment}
    worker = scripted.start("--loglevel=DEBUG", OMNIFLEET_STORAGE=f"s3://{bucket}", **endpoint)
    with Client(scripted.settings, storage=f"s3://{bucket}", s3_endpoint=s3_server.endpoint) as omni:
        job = omni.understand(question="what?", audio=b"no audio")
        services.wait_until(lambda: job.status().is_final, WAIT, "an end")

    fetching = [line for line in worker.lines() if line.get("stage") == "fetch"]
    assert [line for line in fetching if line["logger"].startswith("botocore")]
    assert {(line["job_id"], line["attempt"]) for line in fetching} == {(job.id, 1)}


def test_a_second_attempt_says_that_it_is_one(scripted: ScriptedFleet) -> None:
    lost = scripted.start()
    job = scripted.omni.understand(question="time", max_new_tokens=40)
    services.wait_until(lambda: job.progress().step > 2, WAIT, "progress")
    lost.signal(signal.SIGKILL)

    worker = scripted.start()
    job.result(WAIT)

    assert {line["attempt"] for line in lines_of(worker, job.id)} == {2}
