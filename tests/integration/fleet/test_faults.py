"""Real worker processes that are killed, stopped, cut off and drained: every job has one right outcome all the same."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from omnifleet import Client, JobHandle, JobStatus, TextResult
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.keys import TENANT_LEASES_KEY, TENANT_USE_KEY
from omnifleet_shared.settings import FleetSettings
from support import processes, services
from support.fork_server import ForkServer

LEASE = 4.0
WAIT = 240.0
LONG = 4000
"""Steps that outlast everything a test does to the worker; 200 s of them."""

StartWorker = Callable[..., processes.Process]


@pytest.fixture
def redis(tmp_path: Path) -> services.RedisServer:
    folder = tmp_path / "redis"
    folder.mkdir()
    return services.RedisServer(services.free_port(), folder)


@pytest.fixture
def running_redis(redis: services.RedisServer) -> Iterator[ExitStack]:
    """Redis, up; close the stack to take it down."""
    with ExitStack() as stack:
        stack.enter_context(redis.running())
        yield stack


@pytest.fixture
def settings(redis: services.RedisServer, running_redis: ExitStack, folder: Path) -> FleetSettings:
    return FleetSettings(redis_url=redis.url, storage=f"file://{folder}", lease=LEASE)


@pytest.fixture
def start_worker(settings: FleetSettings, tmp_path: Path, fork_server: ForkServer) -> Iterator[StartWorker]:
    """Starts workers, ready unless told otherwise, that are gone after the test."""
    environment = {
        "OMNIFLEET_REDIS_URL": settings.redis_url,
        "OMNIFLEET_STORAGE": settings.storage,
        "OMNIFLEET_LEASE": str(LEASE),
        "OMNIFLEET_RETRY_BACKOFF": "0.2",
    }
    with ExitStack() as workers:

        def start(ready: bool = True, **more: str) -> processes.Process:
            number = len(list(tmp_path.glob("worker-*.log")))
            log = tmp_path / f"worker-{number}.log"
            name = f"--hostname=scripted-{number}@%h"
            worker = workers.enter_context(fork_server.worker(environment | more, log, name))
            if ready:
                worker.wait_until_ready()
            return worker

        yield start


@pytest.fixture
def omni(settings: FleetSettings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


def ask(omni: Client, what: str = "time", steps: int = LONG) -> JobHandle[TextResult]:
    return omni.understand(question=what, max_new_tokens=steps)


def wait_until_it_steps(job: JobHandle[TextResult]) -> None:
    services.wait_until(lambda: job.progress().step > 2, WAIT, "progress")


def pid_in(result: TextResult) -> int:
    return int(result.text.rpartition(" ")[2])


def test_a_killed_worker_s_job_goes_to_another(omni: Client, start_worker: StartWorker) -> None:
    first, second = (start_worker(OMNIFLEET_CONCURRENCY="3") for _ in range(2))  # neither can take all of the jobs
    jobs = [ask(omni, steps=60) for _ in range(6)]
    for job in jobs:
        wait_until_it_steps(job)

    first.kill()

    results = [job.result(WAIT) for job in jobs]
    assert {pid_in(result) for result in results} == {second.process.pid} | (
        {first.process.pid} & {pid_in(result) for result in results}
    )
    assert sorted({result.attempts for result in results}) == [1, 2]


def test_the_jobs_of_tenants_outlive_a_killed_worker(
    omni: Client, start_worker: StartWorker, redis: services.RedisServer
) -> None:
    first, second = start_worker(), start_worker()
    tenants = [*["greedy"] * 6, *["small"] * 2]
    jobs = [ask(omni.of_tenant(tenant), steps=60) for tenant in tenants]
    for job in jobs:
        wait_until_it_steps(job)

    first.kill()

    assert second.process.pid in {pid_in(job.result(WAIT)) for job in jobs}
    client = redis.client()
    used = {name.decode(): float(seconds) for name, seconds in client.hgetall(TENANT_USE_KEY).items()}
    assert used.keys() == {"greedy", "small"}
    # A step of all jobs together takes 0.05 s, and each job makes 60 of them.
    assert 0.05 * 60 / 8 <= used["small"] < used["greedy"]
    assert client.hlen(TENANT_LEASES_KEY.format(queue="audio-omni")) == 0


def test_a_job_longer_than_its_lease_is_delivered_once(omni: Client, start_worker: StartWorker) -> None:
    start_worker(), start_worker()
    job = ask(omni, steps=int(3 * LEASE / 0.05))

    assert job.result(WAIT).attempts == 1


def test_a_worker_that_wakes_up_late_finds_that_the_job_is_another_s(omni: Client, start_worker: StartWorker) -> None:
    sleeper = start_worker()
    job = ask(omni, steps=60)
    wait_until_it_steps(job)
    sleeper.process.send_signal(signal.SIGSTOP)
    other = start_worker()
    services.wait_until(lambda: "job started" in other.log.read_text(), WAIT, "the other worker's start")

    sleeper.process.send_signal(signal.SIGCONT)

    result = job.result(WAIT)
    assert (pid_in(result), result.attempts) == (other.process.pid, 2)
    services.wait_until(lambda: "outcome_dropped" in sleeper.log.read_text(), WAIT, "the sleeper's outcome is dropped")
    assert job.result(1).attempts == 2


def test_what_was_sent_to_a_stopped_worker_is_not_lost_with_it(omni: Client, start_worker: StartWorker) -> None:
    sleeper = start_worker()
    sleeper.process.send_signal(signal.SIGSTOP)
    jobs = [ask(omni, steps=1) for _ in range(3)]
    time.sleep(0.5)  # for Redis to send the sleeper what it will never read
    sleeper.kill()

    start_worker()

    assert [job.result(WAIT).attempts for job in jobs] == [1, 1, 1]


def test_a_drained_worker_finishes_what_runs_and_leaves_what_waits(omni: Client, start_worker: StartWorker) -> None:
    worker = start_worker(OMNIFLEET_CONCURRENCY="1")
    running, waiting = ask(omni, steps=40), ask(omni, steps=1)
    wait_until_it_steps(running)

    assert worker.terminate() == 0

    assert running.result(1).attempts == 1
    assert waiting.status() is JobStatus.QUEUED
    start_worker()
    assert waiting.result(WAIT).attempts == 1


def test_what_does_not_fit_the_grace_period_is_handed_back_at_once(
    omni: Client, settings: FleetSettings, start_worker: StartWorker
) -> None:
    # A lease that nobody waits out in this test.
    worker = start_worker(OMNIFLEET_GRACE="0.5", OMNIFLEET_LEASE="600")
    job = ask(omni)
    wait_until_it_steps(job)

    assert worker.terminate() == 0

    assert job.status() is JobStatus.RETRYING
    start_worker()
    services.wait_until(lambda: job.status() is JobStatus.RUNNING, WAIT, "the job runs again")
    job.cancel()


def test_a_second_signal_hands_back_now(omni: Client, start_worker: StartWorker) -> None:
    worker = start_worker(OMNIFLEET_GRACE="600", OMNIFLEET_LEASE="600")
    job = ask(omni)
    wait_until_it_steps(job)
    worker.process.send_signal(signal.SIGTERM)
    services.wait_until(lambda: "worker_drains" in worker.log.read_text(), WAIT, "the drain")
    time.sleep(1)  # two signals at once are one

    assert worker.terminate() == 0

    start_worker()
    services.wait_until(lambda: job.status() is JobStatus.RUNNING, WAIT, "the job runs again")
    job.cancel()


def test_a_redis_that_restarts_loses_no_job(
    omni: Client,
    redis: services.RedisServer,
    running_redis: ExitStack,
    start_worker: StartWorker,
    settings: FleetSettings,
) -> None:
    start_worker()
    running = ask(omni, steps=60)
    wait_until_it_steps(running)
    waiting = [ask(omni, steps=60) for _ in range(20)]

    running_redis.close()
    time.sleep(1.0)  # the workers and the client meet a Redis that is not there
    with redis.running():
        results = [job.result(WAIT) for job in [running, *waiting]]
        assert all(result.text for result in results)
        # The worker that reconnected really consumes again.
        assert ask(omni, steps=1).result(WAIT).text
        leases = Leases.connect(settings)
        services.wait_until(lambda: leases.count() == 0, WAIT, "nothing is left under lease")


def test_a_cancelled_job_does_not_come_back_after_a_crash(omni: Client, start_worker: StartWorker) -> None:
    worker = start_worker()
    job = ask(omni)
    wait_until_it_steps(job)
    worker.process.send_signal(signal.SIGSTOP)
    job.cancel()
    worker.kill()

    start_worker()

    services.wait_until(lambda: job.status().is_final, WAIT, "an end")
    assert job.status() is JobStatus.CANCELLED
