"""The exporter's process against a real Redis: what waits, what is under lease, what waits for another attempt."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from omnifleet.ops.exporter import FleetCollector
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.dead_letters import DeadLetter
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.broker.queue_stats import OLDEST_AMONG, submitted_at
from omnifleet_shared.broker.submit import all_lists
from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import JobFailed
from omnifleet_shared.keys import DEAD_KEY, LEASES_KEY, THROUGHPUT_KEY
from omnifleet_shared.schema.jobs import Job, Priority, read_job
from omnifleet_shared.settings import FleetSettings
from prometheus_client import CollectorRegistry
from redis import Redis
from support import scripted_fleet, services

QUEUE = "audio-omni"
LISTS = all_lists(QUEUE)


@pytest.fixture
def settings(redis_url: str) -> FleetSettings:
    return FleetSettings(redis_url=redis_url)


@pytest.fixture
def transport(settings: FleetSettings) -> Iterator[CeleryTransport]:
    with closing(CeleryTransport(settings)) as opened:
        yield opened


@pytest.fixture
def leases(settings: FleetSettings) -> Iterator[Leases]:
    with closing(Leases.connect(settings)) as opened:
        yield opened


@pytest.fixture
def port(settings: FleetSettings) -> Iterator[int]:
    """Of a running exporter."""
    port = services.free_port()
    command = [sys.executable, "-m", "omnifleet", "exporter", "--port", str(port)]
    with services.process(command, environment={"OMNIFLEET_REDIS_URL": settings.redis_url}):
        services.wait_until(lambda: scripted_fleet.page(port, "/livez")[0] == 200, what="the exporter")
        yield port


def a_job(priority: Priority = "interactive", age: float = 0.0) -> Job:
    return read_job(
        {
            "schema_version": 1,
            "namespace": "understand",
            "priority": priority,
            "submitted_at": (datetime.now(UTC) - timedelta(seconds=age)).isoformat(),
            "task": {"name": "question", "text": "?"},
        }
    )


def test_jobs_are_counted_by_priority_wherever_they_are(port: int, transport: CeleryTransport, leases: Leases) -> None:
    for priority, jobs in (("interactive", 5), ("batch", 4)):
        for _ in range(jobs):
            transport.submit(a_job(priority))
    taken = [leases.take(LISTS[::2]), leases.take(LISTS[::2]), leases.take(LISTS[1::2])]
    assert taken[0] is not None
    leases.postpone(taken[0].tag, 60)

    found = scripted_fleet.scrape(port)

    def by_priority(name: str) -> list[float]:
        return [found.value(f"omnifleet_{name}", queue=QUEUE, priority=one) for one in ("interactive", "batch")]

    assert by_priority("queue_jobs") == [3, 3]
    assert by_priority("leased_jobs") == [2, 1]
    assert by_priority("postponed_jobs") == [1, 0]
    assert found.value("omnifleet_redis_up") == 1


def test_what_each_tenant_has_in_the_queue_and_took(port: int, transport: CeleryTransport, redis_url: str) -> None:
    small, greedy = transport.of_tenant("small"), transport.of_tenant("greedy")
    small.submit(first := a_job("batch"))
    with Redis.from_url(redis_url) as redis:
        taken = Leases(redis, QUEUE, seconds=60).take(LISTS)
        assert taken is not None
        attempts = Attempts(redis, QUEUE, lifetime=100, worker="w")
        attempts.fail(first.job_id, JobFailed("it broke"), taken.tag, gpu_seconds=2.5)
        for age in (300, 200, 100):
            greedy.submit(a_job(age=age))
        greedy.submit(a_job("batch", age=400))
        Leases(redis, QUEUE, seconds=60).take(LISTS)

    found = scripted_fleet.scrape(port)

    def of(name: str) -> list[float]:
        return [found.value(f"omnifleet_tenant_{name}", queue=QUEUE, tenant=one) for one in ("greedy", "small")]

    assert (of("jobs"), of("leased_jobs")) == ([3, 0], [1, 0])
    assert 400 <= of("oldest_job_age_seconds")[0] < 500
    assert found.value("omnifleet_tenant_gpu_seconds_total", tenant="small") == 2.5
    assert found.value("omnifleet_queue_jobs", queue=QUEUE, priority="interactive") == 2
    assert 200 <= found.value("omnifleet_oldest_job_age_seconds", queue=QUEUE, priority="interactive") < 300


def test_a_retry_that_is_back_in_the_queue_is_postponed_no_more(
    port: int, transport: CeleryTransport, leases: Leases
) -> None:
    transport.submit(a_job())
    taken = leases.take(LISTS)
    assert taken is not None
    leases.postpone(taken.tag, 0)
    leases.recover()

    found = scripted_fleet.scrape(port)

    assert found.value("omnifleet_queue_jobs", queue=QUEUE, priority="interactive") == 1
    assert found.value("omnifleet_leased_jobs", queue=QUEUE, priority="interactive") == 0
    assert found.value("omnifleet_postponed_jobs", queue=QUEUE, priority="interactive") == 0


def test_jobs_whose_worker_was_lost_wait_to_run_alone(
    port: int, transport: CeleryTransport, leases: Leases, redis_url: str
) -> None:
    job = a_job("batch", age=500)
    transport.submit(job)
    taken = leases.take(LISTS)
    assert taken is not None
    with Redis.from_url(redis_url) as redis:
        Attempts(redis, QUEUE, lifetime=100, worker="w").begin(job.job_id, taken.tag)
        redis.zadd(LEASES_KEY.format(queue=QUEUE), {taken.tag: 1.0})
    leases.recover()

    found = scripted_fleet.scrape(port)

    assert found.value("omnifleet_suspect_jobs", queue=QUEUE) == 1
    assert found.value("omnifleet_queue_jobs", queue=QUEUE, priority="batch") == 1
    assert 500 <= found.value("omnifleet_oldest_job_age_seconds", queue=QUEUE, priority="batch") < 600


def test_the_oldest_age_is_that_of_the_job_that_waits_longest(
    port: int, transport: CeleryTransport, leases: Leases
) -> None:
    for age in (500, 300, 100):
        transport.submit(a_job(age=age))
    # What came back after a lease stands before what waited all along.
    transport.submit(a_job("batch", age=50))
    taken = leases.take(LISTS[1:])
    transport.submit(a_job("batch", age=700))
    assert taken is not None
    leases.postpone(taken.tag, 0)
    leases.recover()

    found = scripted_fleet.scrape(port)

    age = "omnifleet_oldest_job_age_seconds"
    assert 500 <= found.value(age, queue=QUEUE, priority="interactive") < 600
    assert 700 <= found.value(age, queue=QUEUE, priority="batch") < 800


def test_an_empty_queue_has_no_age(port: int) -> None:
    found = scripted_fleet.scrape(port)

    assert ("omnifleet_oldest_job_age_seconds", frozenset({("queue", QUEUE), ("priority", "batch")})) in found
    assert found.value("omnifleet_oldest_job_age_seconds", queue=QUEUE, priority="batch") == 0


def test_a_scrape_costs_no_more_with_many_jobs_in_the_queue(settings: FleetSettings, redis_url: str) -> None:
    registry = CollectorRegistry()
    with Redis.from_url(redis_url) as redis, closing(FleetCollector(settings)) as collector:
        registry.register(collector)
        redis.lpush(QUEUE, *(b"x" * 1000 for _ in range(20_000)))
        before = redis.info("stats")["total_net_output_bytes"]
        list(registry.collect())
        sent = redis.info("stats")["total_net_output_bytes"] - before

    assert sent < 2 * OLDEST_AMONG * 1000


def test_dead_letters_the_pace_and_the_workers_are_there(port: int, settings: FleetSettings, redis_url: str) -> None:
    workers = WorkerRegistry.connect(settings)
    letter = DeadLetter(job=a_job(), reason="r", worker="w", attempts=3)
    now = datetime.now(UTC)
    for name, state in (("a", "ready"), ("b", "ready"), ("c", "loading")):
        record = WorkerRecord(
            name=name, version="1", state=state, started_at=now, reported_at=now, slots=16, engine_slots=8
        )
        workers.report(record)
    with Redis.from_url(redis_url) as redis:
        redis.hset(DEAD_KEY.format(queue=QUEUE), letter.job.job_id, letter.model_dump_json())
        seconds, _ = redis.time()
        # This minute and the last one: the test may run at the turn of one.
        for minute in (seconds // 60 - 1, seconds // 60):
            redis.set(f"{THROUGHPUT_KEY.format(queue=QUEUE)}{minute}", 7)

    found = scripted_fleet.scrape(port)

    assert found.value("omnifleet_dead_letters", queue=QUEUE) == 1
    assert found.value("omnifleet_last_minute_finished_jobs", queue=QUEUE) == 7
    assert found.value("omnifleet_workers", queue=QUEUE, state="ready") == 2
    assert found.value("omnifleet_workers", queue=QUEUE, state="loading") == 1
    assert found.value("omnifleet_fleet_engine_places", queue=QUEUE) == 16
    assert found.value("omnifleet_redis_aof_ok") == 1
    workers.close()


def test_every_queue_of_the_fleet_is_shown_and_none_of_another_fleet(
    port: int, transport: CeleryTransport, settings: FleetSettings, redis_url: str
) -> None:
    own, shipped, abandoned, staging = "audio-omni.mine", "audio-omni.voxcpm2", "audio-omni.old", "staging.voxcpm2"
    now = datetime.now(UTC)
    record = WorkerRecord(name="w", version="1", state="ready", started_at=now, reported_at=now, slots=1)
    with Redis.from_url(redis_url) as redis:
        for queue in (own, abandoned, staging):
            WorkerRegistry(redis, queue).report(record)
        WorkerRegistry(redis, abandoned).remove("w")
        # No worker of this one ever lived, and none of that one does: their jobs wait all the same.
        redis.lpush(shipped, b"x")
        redis.lpush(abandoned, b"x")
        found = scripted_fleet.scrape(port)
        redis.delete(abandoned)
        later = scripted_fleet.scrape(port)

    assert {dict(labels)["queue"] for name, labels in found if name == "omnifleet_queue_jobs"} == {
        *(QUEUE, own, shipped, abandoned)
    }
    assert found.value("omnifleet_workers", queue=own, state="ready") == 1
    assert found.value("omnifleet_workers", queue=abandoned, state="ready") == 0
    waiting = [found.value("omnifleet_queue_jobs", queue=queue, priority="interactive") for queue in (shipped, QUEUE)]
    assert waiting == [1, 0]
    # What was shown falls to 0 and does not vanish: alerts and whatever scales workers go on from it.
    assert later.value("omnifleet_queue_jobs", queue=abandoned, priority="interactive") == 0


def test_a_tenant_that_used_several_queues_is_counted_once(
    port: int, transport: CeleryTransport, redis_url: str
) -> None:
    transport.of_tenant("acme").submit(job := a_job())
    with Redis.from_url(redis_url) as redis:
        taken = Leases(redis, QUEUE, seconds=60).take(LISTS)
        assert taken is not None
        attempts = Attempts(redis, QUEUE, lifetime=100, worker="w")
        attempts.fail(job.job_id, JobFailed("it broke"), taken.tag, gpu_seconds=2.5)
        redis.lpush("audio-omni.voxcpm2", b"x")

    _, text = scripted_fleet.page(port, "/metrics")

    lines = [line for line in text.splitlines() if line.startswith("omnifleet_tenant_gpu_seconds_total{")]
    assert lines == ['omnifleet_tenant_gpu_seconds_total{tenant="acme"} 2.5']


def test_without_redis_it_lives_and_says_so() -> None:
    port = services.free_port()
    command = [sys.executable, "-m", "omnifleet", "exporter", "--port", str(port)]
    nowhere = {"OMNIFLEET_REDIS_URL": f"redis://127.0.0.1:{services.free_port()}/0"}
    with services.process(command, environment=nowhere):
        services.wait_until(lambda: scripted_fleet.page(port, "/livez")[0] == 200, what="the exporter")

        assert dict(scripted_fleet.scrape(port)) == {("omnifleet_redis_up", frozenset()): 0}


def test_a_port_that_is_taken_is_said(port: int, settings: FleetSettings) -> None:
    command = [sys.executable, "-m", "omnifleet", "exporter", "--port", str(port)]

    second = subprocess.run(command, capture_output=True, text=True, timeout=scripted_fleet.WAIT)

    assert second.returncode == 2
    assert "--port: nothing can listen on" in second.stderr


@pytest.mark.parametrize("message", [b"", b"no JSON", b"{}", b'{"body": 1}', b'{"body": "e30="}', b"[[[["])
def test_what_is_no_message_has_no_age(message: bytes) -> None:
    assert submitted_at(message) is None
