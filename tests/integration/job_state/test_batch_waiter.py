"""Waiting for many jobs, and knowing how many the fleet holds, against a real Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from omnifleet import FleetSettings, MediaEmpty
from omnifleet_shared.errors import BrokerUnavailable
from omnifleet_shared.job_state.batch_waiter import RedisResultWaiter
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.schema.job_state import STATE_KEY
from omnifleet_shared.schema.results import JobStatus
from redis import Redis
from support import services


@pytest.fixture
def settings(redis_url: str) -> FleetSettings:
    return FleetSettings(redis_url=redis_url)


@pytest.fixture
def states(settings: FleetSettings) -> Iterator[JobStates]:
    states = JobStates.connect(settings)
    yield states
    states.close()


@pytest.fixture
def watch(settings: FleetSettings) -> Iterator[RedisResultWaiter]:
    watch = RedisResultWaiter.connect(settings)
    yield watch
    watch.close()


def ids(count: int) -> list[str]:
    return [f"job-{number}" for number in range(count)]


def test_jobs_that_ended_before_they_are_watched_are_told(states: JobStates, watch: RedisResultWaiter) -> None:
    for job_id in ids(1200):
        services.mark_failed(states, job_id, MediaEmpty("nothing"))

    watch.add(ids(1200))

    told = watch.wait(60)
    assert {job_id for job_id, _ in told} == set(ids(1200))
    assert all(state.status is JobStatus.FAILED and isinstance(state.error, MediaEmpty) for _, state in told)


def test_jobs_that_end_while_they_are_watched_are_told_once(states: JobStates, watch: RedisResultWaiter) -> None:
    for job_id in ids(3):
        services.mark_queued(states, job_id)
    watch.add(ids(3))
    assert watch.wait(0.1) == []

    services.mark_failed(states, "job-1", MediaEmpty("nothing"))

    assert [job_id for job_id, _ in watch.wait(60)] == ["job-1"]
    services.mark_failed(states, "job-1", MediaEmpty("nothing"))
    assert watch.wait(1.5) == []


def test_all_jobs_share_one_subscription(states: JobStates, watch: RedisResultWaiter, redis_url: str) -> None:
    for job_id in ids(300):
        services.mark_queued(states, job_id)
    with Redis.from_url(redis_url) as redis:
        before = len(redis.client_list())
        watch.add(ids(300))
        watch.wait(0.2)

        services.wait_until(lambda: len(redis.pubsub_channels("*job-*")) == 300, what="all subscriptions")
        assert len(redis.client_list()) - before <= 2

        watch.discard(ids(299))
        watch.wait(0.2)
        left = [STATE_KEY.format(job_id="job-299").encode()]
        services.wait_until(lambda: redis.pubsub_channels("*job-*") == left, what="one subscription")


def test_a_job_without_a_record_is_unknown_until_it_has_one(states: JobStates, watch: RedisResultWaiter) -> None:
    watch.add(["job-0"])
    watch.wait(0.1)
    assert watch.unknown == {"job-0"}

    services.mark_queued(states, "job-0")
    watch.wait(2.5)  # polls twice

    assert watch.unknown == set()


def test_an_end_that_was_published_to_nobody_is_found(
    states: JobStates, watch: RedisResultWaiter, redis_url: str
) -> None:
    services.mark_queued(states, "job-0")
    watch.add(["job-0"])
    watch.wait(0.1)
    services.mark_failed(states, "job-1", MediaEmpty("nothing"))
    with Redis.from_url(redis_url) as redis:
        redis.copy(STATE_KEY.format(job_id="job-1"), STATE_KEY.format(job_id="job-0"), replace=True)

    assert [job_id for job_id, _ in watch.wait(60)] == ["job-0"]


def test_a_record_that_cannot_be_read_is_a_failure(watch: RedisResultWaiter, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.set(STATE_KEY.format(job_id="job-0"), b"no record")
    watch.add(["job-0"])

    (told,) = watch.wait(60)

    assert told[1].status is JobStatus.FAILED


def test_a_redis_that_goes_away_is_said_and_nothing_is_forgotten(redis_url: str) -> None:
    proxy = services.Proxy(int(redis_url.rpartition(":")[2].partition("/")[0]))
    through = FleetSettings(redis_url=f"redis://127.0.0.1:{proxy.port}/0")
    states, watch = JobStates.connect(FleetSettings(redis_url=redis_url)), RedisResultWaiter.connect(through)
    with proxy.running():
        services.mark_queued(states, "job-0")
        watch.add(["job-0"])
        watch.wait(0.1)
        proxy.cut()
        with pytest.raises(BrokerUnavailable):
            watch.wait(5)
        services.mark_failed(states, "job-0", MediaEmpty("nothing"))
        proxy.heal()

        assert [job_id for job_id, _ in watch.wait(60)] == ["job-0"]
        watch.close()
    states.close()
