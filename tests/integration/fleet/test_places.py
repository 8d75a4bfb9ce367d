"""Faults of a worker's place (credentials, bucket, disk): it steps aside and its jobs are others', or wait for it."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from omnifleet import Client, JobStatus, StorageRefused
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.schema.jobs import read_job
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker


def of_bucket(bucket: str, s3_server: services.S3Server) -> dict[str, str]:
    """Settings of a worker whose storage is that bucket."""
    endpoint = {"OMNIFLEET_S3_ENDPOINT": s3_server.endpoint, **s3_server.environment}
    return {"OMNIFLEET_STORAGE": f"s3://{bucket}/omni", **endpoint}


@pytest.fixture
def omni(scripted: ScriptedFleet, bucket: str, s3_server: services.S3Server) -> Iterator[Client]:
    with Client(scripted.settings, storage=f"s3://{bucket}/omni", s3_endpoint=s3_server.endpoint) as client:
        yield client


def wait_until_aside(worker: ScriptedWorker) -> str:
    services.wait_until(lambda: "out of service" in worker.page("/readyz")[1], WAIT, "the worker steps aside")
    return worker.page("/readyz")[1]


def wait_for_report_of(worker: ScriptedWorker, reason: str, scripted: ScriptedFleet) -> WorkerRecord:
    """Give the worker's record once a heartbeat, which lags behind its health page, tells that reason."""
    told: list[WorkerRecord] = []

    def is_told() -> bool:
        records = [one.record for one in workers.all() if one.record.name.endswith(f":{worker.pid}")]
        told[:] = [record for record in records if reason in str(record.reason)]
        return bool(told)

    with closing(WorkerRegistry.connect(scripted.settings)) as workers:
        services.wait_until(is_told, WAIT, f"a heartbeat that tells {reason}")
    return told[0]


def test_what_one_worker_is_refused_another_does_and_nothing_fails(
    scripted: ScriptedFleet, omni: Client, bucket: str, s3_server: services.S3Server
) -> None:
    misplaced = scripted.start(**of_bucket("there-is-no-such-bucket", s3_server), OMNIFLEET_CONCURRENCY="4")
    jobs = [omni.generate("t2a", "a bell", seconds=1, steps=1, seed=number) for number in range(8)]
    reason = wait_until_aside(misplaced)

    scripted.start(**of_bucket(bucket, s3_server))

    assert [job.result(WAIT).audio.seconds for job in jobs] == [1] * 8
    assert "NoSuchBucket" in reason
    assert misplaced.status("/livez") == 200
    report = wait_for_report_of(misplaced, "NoSuchBucket", scripted)
    assert report.failed == 0


@pytest.mark.parametrize("secret", ["wrong", ""], ids=["wrong", "none"])
def test_credentials_that_are_wrong_on_one_worker_fail_no_job(
    scripted: ScriptedFleet, omni: Client, bucket: str, s3_server: services.S3Server, secret: str
) -> None:
    if secret and services.s3_server_name() == "moto":
        pytest.skip("moto checks no credentials")
    misled = {"AWS_SECRET_ACCESS_KEY": secret, "AWS_EC2_METADATA_DISABLED": "true"}
    if not secret:
        misled["AWS_ACCESS_KEY_ID"] = ""
    wrong = scripted.start(**of_bucket(bucket, s3_server) | misled)
    jobs = [omni.generate("t2a", "a bell", seconds=1, steps=1, seed=number) for number in range(4)]
    wait_until_aside(wrong)

    scripted.start(**of_bucket(bucket, s3_server))

    assert [job.result(WAIT).audio.seconds for job in jobs] == [1] * 4


def test_jobs_of_a_lone_worker_wait_until_its_storage_works(
    scripted: ScriptedFleet, omni: Client, s3_server: services.S3Server
) -> None:
    later = f"later-{uuid.uuid4().hex[:12]}"
    worker = scripted.start(**of_bucket(later, s3_server), OMNIFLEET_MAX_ATTEMPTS="1")
    job = omni.generate("t2a", "a bell", seconds=1, steps=1)
    wait_until_aside(worker)
    assert not job.status().is_final

    s3_server.client().create_bucket(Bucket=later)

    services.wait_until(lambda: job.status() is JobStatus.SUCCEEDED, WAIT, "the job's success")
    assert worker.status("/readyz") == 200
    assert {"out_of_service", "back_in_service"} <= {line.get("action") for line in worker.lines()}


def test_a_job_that_is_at_fault_itself_fails_and_its_worker_goes_on(scripted: ScriptedFleet) -> None:
    worker = scripted.start()
    services.wait_until(lambda: is_ready(scripted, worker), WAIT, "a report that it is ready")
    uri = f"{scripted.settings.storage}/{'n' * 300}"  # longer than names of files may be
    task = {"name": "caption", "audio": [{"uri": uri}]}
    job = read_job({"schema_version": 1, "namespace": "understand", "task": task})
    with (
        closing(CeleryTransport(scripted.settings)) as transport,
        closing(JobStates.connect(scripted.settings)) as states,
    ):
        transport.submit(job)

        state = states.wait(job.job_id, WAIT)

    assert state.status is JobStatus.FAILED
    assert isinstance(state.error, StorageRefused)
    assert worker.status("/readyz") == 200
    assert scripted.omni.understand(question="Are you there?", max_new_tokens=1).result(WAIT).text


def is_ready(scripted: ScriptedFleet, worker: ScriptedWorker) -> bool:
    with closing(WorkerRegistry.connect(scripted.settings)) as workers:
        return any(one.record.state == "ready" for one in workers.all() if one.record.name.endswith(f":{worker.pid}"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 70 MiB, which is enough for a probe."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=70m", "tmpfs", str(folder)], capture_output=True
        ).returncode
    ):
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_jobs_wait_for_room_on_a_full_disk(scripted: ScriptedFleet, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(70 * 2**20 - 2**16))
    worker = scripted.start(OMNIFLEET_STORAGE=f"file://{small_disk}")
    job = scripted.omni.generate("t2a", "a bell", seconds=1, steps=1)
    assert "no room" in wait_until_aside(worker)

    filler.unlink()

    services.wait_until(lambda: job.status() is JobStatus.SUCCEEDED, WAIT, "the job's success")
