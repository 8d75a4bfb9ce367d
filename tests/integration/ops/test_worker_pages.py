"""What a real worker process shows over HTTP while jobs run, fail, are lost and come back."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
from omnifleet import Client, JobCancelled, JobQuarantined, MediaUnreadable
from omnifleet_shared.broker.celery_app import create_app
from omnifleet_shared.broker.worker_registry import WorkerRegistry
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker

LONG = 4000
"""Steps that outlast the test."""


def wait_for_count(worker: ScriptedWorker, value: float, name: str, **labels: str) -> None:
    # A job's outcome is there a moment before it is counted.
    services.wait_until(lambda: worker.metrics().value(name, **labels) == value, WAIT, f"{name} {labels} == {value}")


def test_a_worker_lives_while_it_loads_and_is_ready_only_when_it_polls(scripted: ScriptedFleet, tmp_path: Path) -> None:
    worker = scripted.start(ready=False, SCRIPTED_LOAD_AWAITS=str(tmp_path / "loaded"))
    services.wait_until(lambda: worker.status("/livez") == 200, WAIT, "a live worker")

    assert worker.page("/readyz") == (503, "loading: the checkpoint is not there yet\n")
    assert worker.metrics().value("omnifleet_worker_ready") == 0

    (tmp_path / "loaded").touch()

    services.wait_until(lambda: worker.status("/readyz") == 200, WAIT, "a ready worker")
    metrics = worker.metrics()
    assert metrics.value("omnifleet_worker_ready") == 1
    assert metrics.labels("omnifleet_checkpoint_info") == {"name": "scripted", "revision": "1"}
    assert metrics.value("omnifleet_engine_places") == 8
    assert metrics.value("omnifleet_worker_places") == 32  # 16 of each kind
    assert worker.status("/elsewhere") == 404


def test_a_draining_worker_lives_and_is_not_ready(scripted: ScriptedFleet) -> None:
    worker = scripted.start(OMNIFLEET_GRACE="600")
    job = scripted.omni.understand(question="time", max_new_tokens=LONG)
    services.wait_until(lambda: job.progress().step > 0, WAIT, "progress")

    worker.signal(signal.SIGTERM)

    services.wait_until(lambda: worker.status("/readyz") == 503, WAIT, "a draining worker")
    assert worker.page("/readyz")[1].startswith("draining")
    assert worker.status("/livez") == 200
    job.cancel()
    worker.wait()


def test_a_worker_whose_engine_hangs_does_not_live(scripted: ScriptedFleet) -> None:
    # Its keeper, who would end the process, looks four times a lease.
    worker = scripted.start(OMNIFLEET_ENGINE_PATIENCE="1", OMNIFLEET_LEASE="3600")

    scripted.omni.understand(question="hang")

    services.wait_until(lambda: worker.status("/livez") == 503, WAIT, "a hung worker")
    assert worker.page("/livez")[1].startswith("the engine has not stepped")
    assert worker.status("/readyz") == 503


def test_a_worker_lives_on_while_redis_is_away(scripted: ScriptedFleet) -> None:
    worker = scripted.start(OMNIFLEET_POLL_PATIENCE="4")
    scripted.redis.client().shutdown(nosave=True)

    services.wait_until(lambda: worker.status("/readyz") == 503, WAIT, "a worker that is not ready")

    assert worker.page("/readyz")[1].startswith("poll stalled")
    assert worker.status("/livez") == 200


def test_a_port_that_is_taken_ends_the_worker_with_a_word(scripted: ScriptedFleet) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        worker = scripted.start(ready=False, OMNIFLEET_HTTP_PORT=str(taken.getsockname()[1]))

        worker.wait()

    assert "OMNIFLEET_HTTP_PORT: nothing can listen" in worker.log.read_text()


def test_jobs_are_counted_by_task_and_outcome(scripted: ScriptedFleet) -> None:
    worker, omni = scripted.start(), scripted.omni
    answers = [omni.understand(question="time", max_new_tokens=5) for _ in range(4)]
    for answer in answers:
        answer.result(WAIT)
    omni.generate("t2a", "a tone", steps=5, priority="batch").result(WAIT)
    with pytest.raises(MediaUnreadable):
        omni.understand(question="what?", audio=b"no audio").result(WAIT)
    unwanted = omni.understand(question="time", max_new_tokens=LONG)
    services.wait_until(lambda: unwanted.progress().step > 0, WAIT, "progress")
    unwanted.cancel()
    with pytest.raises(JobCancelled):
        unwanted.result(WAIT)

    jobs = "omnifleet_jobs_total"
    wait_for_count(worker, 4, jobs, task="understand.question", outcome="succeeded")
    wait_for_count(worker, 1, jobs, task="generate.t2a", outcome="succeeded")
    wait_for_count(worker, 1, jobs, task="understand.question", outcome="failed")
    wait_for_count(worker, 1, jobs, task="understand.question", outcome="cancelled")
    metrics = worker.metrics()
    assert metrics.value("omnifleet_job_errors_total", error="MediaUnreadable") == 1
    assert metrics.value("omnifleet_job_queue_wait_seconds_count", priority="interactive") == 6
    assert metrics.value("omnifleet_job_queue_wait_seconds_count", priority="batch") == 1
    assert metrics.value("omnifleet_job_seconds_count", task="generate.t2a") == 1
    # Four answers and a clip: nobody else came as far as storing.
    assert metrics.value("omnifleet_job_stage_seconds_count", stage="stored") == 1
    # Who names no file fetches none.
    assert metrics.value("omnifleet_job_stage_seconds_count", stage="fetched") == 1


def test_the_engine_s_steps_and_batches_are_measured(scripted: ScriptedFleet) -> None:
    worker = scripted.start()

    job = scripted.omni.generate("t2a", "a tone", steps=7)
    job.result(WAIT)

    metrics = worker.metrics()
    calls, batches = "omnifleet_engine_call_seconds", "omnifleet_engine_batch_requests"
    assert metrics.value(f"{calls}_count", work="diffusion") == 7
    assert metrics.value(f"{calls}_sum", work="diffusion") >= 7 * 0.05
    assert metrics.value(f"{batches}_sum", work="diffusion") == 7
    assert metrics.value(f"{calls}_count", work="prepare") == metrics.value(f"{calls}_count", work="finish") == 1


def test_a_lost_worker_s_job_is_counted_as_redelivered(scripted: ScriptedFleet) -> None:
    lost = scripted.start()
    job = scripted.omni.understand(question="time", max_new_tokens=40)
    services.wait_until(lambda: job.progress().step > 2, WAIT, "progress")

    lost.kill()
    worker = scripted.start()
    job.result(WAIT)

    wait_for_count(worker, 1, "omnifleet_jobs_total", task="understand.question", outcome="succeeded")
    metrics = worker.metrics()
    assert metrics.value("omnifleet_job_redeliveries_total") == 1
    assert metrics.value("omnifleet_leases_recovered_total") == 1
    assert metrics.value("omnifleet_lease_renewals_total") > 0
    # It was not the first start, whose wait alone is recorded.
    assert metrics.value("omnifleet_job_queue_wait_seconds_count", priority="interactive") == 0


def test_a_job_that_is_dead_lettered_is_counted(scripted: ScriptedFleet) -> None:
    job = scripted.omni.understand(question="die")
    for _ in range(2):
        scripted.start(ready=False).wait()

    worker = scripted.start(OMNIFLEET_MAX_DELIVERIES="2")
    with pytest.raises(JobQuarantined):
        job.result(WAIT)

    wait_for_count(worker, 1, "omnifleet_jobs_total", task="understand.question", outcome="quarantined")


def test_errors_of_the_storage_are_counted(scripted: ScriptedFleet, s3_server: services.S3Server, bucket: str) -> None:
    there, not_there = f"s3://{bucket}", "s3://there-is-no-such-bucket"
    endpoint = {"OMNIFLEET_S3_ENDPOINT": s3_server.endpoint, **s3_server.environment}
    worker = scripted.start(OMNIFLEET_STORAGE=not_there, **endpoint)
    with Client(scripted.settings, storage=there, s3_endpoint=s3_server.endpoint) as omni:
        omni.generate("t2a", "a tone", steps=1)

        services.wait_until(lambda: worker.status("/readyz") == 503, WAIT, "the worker steps aside")

    metrics = worker.metrics()
    assert metrics.value("omnifleet_storage_errors_total", operation="put", error="StorageRefused") >= 2
    assert metrics.value("omnifleet_jobs_total", task="generate.t2a", outcome="failed") == 0
    assert metrics.value("omnifleet_worker_out_of_service") == 1
    assert "NoSuchBucket" in worker.page("/readyz")[1]


def test_workers_tell_redis_of_themselves_until_they_end(scripted: ScriptedFleet) -> None:
    workers = WorkerRegistry.connect(scripted.settings)
    worker = scripted.start()
    scripted.omni.generate("t2a", "a tone", steps=5).result(WAIT)
    services.wait_until(lambda: [one.record.succeeded for one in workers.all()] == [1], WAIT, "a telling worker")

    (seen,) = workers.all()
    name = seen.record.name
    assert name.endswith(f":{worker.pid}")
    # One name, in Celery's commands and so in Flower, in metrics and in the log.
    assert list(create_app(scripted.settings).control.inspect(timeout=WAIT, limit=1).ping() or {}) == [name]
    about = worker.metrics().labels("omnifleet_worker_info")
    assert (about["name"], about["queue"]) == (name, scripted.settings.queue)
    assert {line["worker"] for line in worker.lines()} == {name}
    assert (seen.record.state, seen.record.checkpoint, seen.record.revision) == ("ready", "scripted", "1")
    assert abs(seen.skew) < 60  # a busy machine reports late
    assert workers.capacity().engine_slots == 8

    worker.signal(signal.SIGTERM)
    worker.wait()

    assert workers.all() == []
    workers.close()


def test_a_killed_worker_is_forgotten_after_a_while(scripted: ScriptedFleet) -> None:
    workers = WorkerRegistry.connect(scripted.settings)
    worker = scripted.start()
    services.wait_until(lambda: len(workers.all()) == 1, WAIT, "a telling worker")

    worker.kill()

    services.wait_until(lambda: workers.all() == [], WAIT, "nobody")
    workers.close()
