"""States of jobs in a real Redis, with the records that Celery itself writes."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from celery import Celery
from celery.backends.redis import RedisBackend
from celery.exceptions import TaskRevokedError
from omnifleet_shared.errors import (
    BrokerUnavailable,
    InvalidMessage,
    JobCancelled,
    JobFailed,
    MediaTooLong,
    OmnifleetError,
    SchemaTooNew,
    StorageUnavailable,
    UnknownJob,
)
from omnifleet_shared.job_state import watched_jobs
from omnifleet_shared.job_state.store import JobState, JobStates
from omnifleet_shared.keys import CANCEL_KEY, CANCEL_LIFETIME, PROGRESS_KEY, PROGRESS_LIFETIME
from omnifleet_shared.schema.job_state import STATE_KEY
from omnifleet_shared.schema.results import JobStatus, Progress, read_result
from omnifleet_shared.settings import FleetSettings
from support import services

# Celery 5.6 stores results with a command that redis-py has marked as old.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")

JOB = "job-1"
RESULT: dict[str, Any] = {
    "schema_version": 1,
    "job_id": JOB,
    "namespace": "understand",
    "task": "transcribe",
    "text": "hello",
    "model": {"name": "audio-omni", "revision": "published", "licence": "CC BY-NC 4.0"},
    "seed": 7,
    "attempts": 1,
    "timings": {"sampled": 1.5},
}
TOO_LONG = MediaTooLong("301 s are too many", "audio", "Cut it", {"seconds": 301})
LONG_ENOUGH = 240.0
"""Seconds that no waiter needs; a test that waits for them has failed."""


@pytest.fixture
def redis(redis_url: str) -> Iterator[redis_py.Redis]:
    client = redis_py.Redis.from_url(redis_url)
    yield client
    client.close()


@pytest.fixture
def states(redis_url: str) -> Iterator[JobStates]:
    connected = JobStates.connect(FleetSettings(redis_url=redis_url, result_lifetime=3600))
    yield connected
    connected.close()


@contextmanager
def celery_backend(url: str) -> Iterator[RedisBackend]:
    """Celery's own writer of results, configured as in a worker."""
    app = Celery("omnifleet-test", backend=url, set_as_current=False)
    assert isinstance(app.backend, RedisBackend)
    yield app.backend
    app.backend.client.close()
    app.close()


@pytest.fixture
def celery(redis_url: str) -> Iterator[RedisBackend]:
    with celery_backend(redis_url) as writer:
        yield writer


def wait_for_a_subscriber(redis: redis_py.Redis) -> None:
    """Return as soon as a waiter has subscribed to the job's states."""

    def is_subscribed() -> bool:
        ((_, subscribers),) = redis.pubsub_numsub(STATE_KEY.format(job_id=JOB))  # type: ignore[misc]
        return bool(subscribers)

    services.wait_until(is_subscribed, LONG_ENOUGH, "a waiter that listens")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


class TestRecords:
    def test_a_queued_job_is_known(self, states: JobStates) -> None:
        services.mark_queued(states, JOB)

        assert states.read(JOB) == JobState(status=JobStatus.QUEUED)

    def test_an_id_never_submitted_is_unknown(self, states: JobStates) -> None:
        with pytest.raises(UnknownJob, match="'nobody'") as caught:
            states.read("nobody")

        assert caught.value.field == "job_id"

    def test_waiting_for_an_unknown_job_raises_at_once(self, states: JobStates) -> None:
        with pytest.raises(UnknownJob):
            states.wait("nobody", timeout=None)

    def test_waiting_for_an_ended_job_takes_no_subscription(self, states: JobStates, redis: redis_py.Redis) -> None:
        services.mark_failed(states, JOB, TOO_LONG)
        redis.config_resetstat()

        assert states.wait(JOB, timeout=None).status is JobStatus.FAILED

        commands = redis.info("commandstats")
        assert "cmdstat_get" in commands
        assert "cmdstat_subscribe" not in commands

    def test_jobs_are_kept_apart(self, states: JobStates) -> None:
        services.mark_queued(states, "one")
        services.mark_failed(states, "two", TOO_LONG)

        assert states.read("one").status is JobStatus.QUEUED

    def test_a_record_lives_as_long_as_the_settings_say(self, states: JobStates, redis: redis_py.Redis) -> None:
        services.mark_queued(states, JOB)

        assert 3500 < redis.ttl(STATE_KEY.format(job_id=JOB)) <= 3600  # type: ignore[operator]

    def test_the_remedy_says_how_long_records_are_kept(self, redis_url: str) -> None:
        states = JobStates(redis_py.Redis.from_url(redis_url), lifetime=43200)

        with pytest.raises(UnknownJob, match=r"kept for 0\.5 days"):
            states.read("nobody")
        states.close()

    def test_celery_reads_a_queued_record_too(self, states: JobStates, celery: RedisBackend) -> None:
        services.mark_queued(states, JOB)

        assert celery.get_task_meta(JOB)["status"] == "QUEUED"

    def test_celery_reads_a_failure_too(self, states: JobStates, celery: RedisBackend) -> None:
        services.mark_failed(states, JOB, TOO_LONG)

        failure = celery.get_task_meta(JOB)["result"]

        assert type(failure) is MediaTooLong
        assert failure.args == TOO_LONG.args

    def test_ping_passes(self, states: JobStates) -> None:
        states.check_redis()

    def test_closing_leaves_no_connection_open(self, redis_url: str, redis: redis_py.Redis) -> None:
        states = JobStates.connect(FleetSettings(redis_url=redis_url))
        before = redis.info("clients")["connected_clients"]  # type: ignore[index]
        states.check_redis()

        states.close()

        services.wait_until(lambda: redis.info("clients")["connected_clients"] <= before)  # type: ignore[index]

    def test_a_client_left_to_the_collector_leaks_nothing(self, redis_url: str) -> None:
        states = JobStates.connect(FleetSettings(redis_url=redis_url))
        states.check_redis()

        del states
        gc.collect()  # a ResourceWarning here fails the test


class TestCelerysRecords:
    def test_a_success(self, states: JobStates, celery: RedisBackend) -> None:
        celery.store_result(JOB, RESULT, "SUCCESS")

        assert states.read(JOB) == JobState(status=JobStatus.SUCCEEDED, result=read_result(RESULT))

    def test_a_start(self, states: JobStates, celery: RedisBackend) -> None:
        celery.store_result(JOB, {"pid": 1, "hostname": "worker@h"}, "STARTED")

        assert states.read(JOB) == JobState(status=JobStatus.RUNNING)

    @pytest.mark.parametrize("state", ["PENDING", "RECEIVED", "SOMETHING"])
    def test_what_decides_nothing(self, states: JobStates, celery: RedisBackend, state: str) -> None:
        celery.store_result(JOB, {"exc_type": "x"}, state)

        assert states.read(JOB) == JobState(status=JobStatus.QUEUED)

    @pytest.mark.parametrize(("state", "status"), [("FAILURE", JobStatus.FAILED), ("RETRY", JobStatus.RETRYING)])
    def test_an_error_of_ours(self, states: JobStates, celery: RedisBackend, state: str, status: JobStatus) -> None:
        error = StorageUnavailable("the object storage is busy", "storage", details={"code": 503})
        celery.store_result(JOB, error, state)

        read = states.read(JOB)

        assert read.status is status
        assert type(read.error) is StorageUnavailable
        assert read.error.args == error.args

    def test_an_error_of_others(self, states: JobStates, celery: RedisBackend) -> None:
        celery.store_result(JOB, ZeroDivisionError("division by zero"), "FAILURE")

        error = states.read(JOB).error

        assert type(error) is JobFailed
        assert error.details == {"type": "ZeroDivisionError"}

    def test_a_cancellation_by_the_worker(self, states: JobStates, celery: RedisBackend) -> None:
        celery.store_result(JOB, JobCancelled("it was cancelled at step 3"), "FAILURE")

        read = states.read(JOB)

        assert read.status is JobStatus.CANCELLED
        assert str(read.error) == "it was cancelled at step 3."

    def test_a_revocation_by_an_operator(self, states: JobStates, celery: RedisBackend) -> None:
        celery.store_result(JOB, TaskRevokedError("revoked"), "REVOKED")

        read = states.read(JOB)

        assert read.status is JobStatus.CANCELLED
        assert type(read.error) is JobCancelled

    @pytest.mark.parametrize("outcome", [None, "broken", [], {}, 7])
    def test_a_failure_without_its_reason_is_still_a_failure(
        self, states: JobStates, redis: redis_py.Redis, outcome: object
    ) -> None:
        redis.set(STATE_KEY.format(job_id=JOB), json.dumps({"status": "FAILURE", "result": outcome}))

        read = states.read(JOB)

        assert read.status is JobStatus.FAILED
        assert type(read.error) is JobFailed

    @pytest.mark.parametrize(
        ("outcome", "kind"),
        [
            (None, InvalidMessage),
            ("done", InvalidMessage),
            ({"schema_version": 1}, InvalidMessage),
            (RESULT | {"schema_version": 2}, SchemaTooNew),
        ],
    )
    def test_a_result_that_cannot_be_read_is_a_failure(
        self, states: JobStates, celery: RedisBackend, outcome: object, kind: type[OmnifleetError]
    ) -> None:
        celery.store_result(JOB, outcome, "SUCCESS")

        read = states.read(JOB)

        assert read.status is JobStatus.FAILED
        assert type(read.error) is kind

    @pytest.mark.parametrize("stored", [b"", b"{", b"[]", b"null", b"7", b"\xff\x00"])
    def test_a_record_that_is_none_raises(self, states: JobStates, redis: redis_py.Redis, stored: bytes) -> None:
        redis.set(STATE_KEY.format(job_id=JOB), stored)

        with pytest.raises(InvalidMessage, match="no record"):
            states.read(JOB)


class TestWait:
    @pytest.fixture(autouse=True)
    def _never_looks_by_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watched_jobs, "POLL_INTERVAL", LONG_ENOUGH)

    def start(self, executor: ThreadPoolExecutor, states: JobStates, redis: redis_py.Redis) -> Future[JobState]:
        services.mark_queued(states, JOB)
        outcome = executor.submit(states.wait, JOB, LONG_ENOUGH)
        wait_for_a_subscriber(redis)
        return outcome

    def test_a_final_state_is_returned_at_once(self, states: JobStates, celery: RedisBackend) -> None:
        celery.store_result(JOB, RESULT, "SUCCESS")

        assert states.wait(JOB, timeout=None).status is JobStatus.SUCCEEDED

    def test_a_success_wakes(
        self, states: JobStates, celery: RedisBackend, executor: ThreadPoolExecutor, redis: redis_py.Redis
    ) -> None:
        outcome = self.start(executor, states, redis)

        celery.store_result(JOB, RESULT, "SUCCESS")

        assert outcome.result(LONG_ENOUGH).result == read_result(RESULT)

    def test_a_failure_wakes(
        self, states: JobStates, celery: RedisBackend, executor: ThreadPoolExecutor, redis: redis_py.Redis
    ) -> None:
        outcome = self.start(executor, states, redis)

        celery.store_result(JOB, TOO_LONG, "FAILURE")

        assert str(outcome.result(LONG_ENOUGH).error) == str(TOO_LONG)

    def test_our_own_failure_wakes(
        self, states: JobStates, executor: ThreadPoolExecutor, redis: redis_py.Redis
    ) -> None:
        outcome = self.start(executor, states, redis)

        services.mark_failed(states, JOB, TOO_LONG)

        assert type(outcome.result(LONG_ENOUGH).error) is MediaTooLong

    def test_states_on_the_way_do_not_end_it(
        self, states: JobStates, celery: RedisBackend, executor: ThreadPoolExecutor, redis: redis_py.Redis
    ) -> None:
        outcome = self.start(executor, states, redis)

        celery.store_result(JOB, {"pid": 1, "hostname": "h"}, "STARTED")
        celery.store_result(JOB, StorageUnavailable("busy"), "RETRY")
        celery.store_result(JOB, RESULT, "SUCCESS")

        assert outcome.result(LONG_ENOUGH).status is JobStatus.SUCCEEDED

    def test_a_record_that_vanishes_ends_it(
        self,
        states: JobStates,
        executor: ThreadPoolExecutor,
        redis: redis_py.Redis,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(watched_jobs, "POLL_INTERVAL", 0.05)
        outcome = self.start(executor, states, redis)

        redis.delete(STATE_KEY.format(job_id=JOB))

        with pytest.raises(UnknownJob):
            outcome.result(LONG_ENOUGH)

    @pytest.mark.parametrize("timeout", [0.0, 0.05, -1.0])
    def test_when_the_time_is_over_the_state_is_as_it_is(self, states: JobStates, timeout: float) -> None:
        services.mark_queued(states, JOB)

        assert states.wait(JOB, timeout).status is JobStatus.QUEUED

    def test_a_message_that_was_lost_is_made_up_for(
        self,
        states: JobStates,
        redis: redis_py.Redis,
        executor: ThreadPoolExecutor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(watched_jobs, "POLL_INTERVAL", 0.05)
        outcome = self.start(executor, states, redis)

        redis.set(STATE_KEY.format(job_id=JOB), json.dumps({"status": "SUCCESS", "result": RESULT}))

        assert outcome.result(LONG_ENOUGH).status is JobStatus.SUCCEEDED


class TestRestart:
    def test_waiting_goes_on_through_a_restart(self, tmp_path: Path, executor: ThreadPoolExecutor) -> None:
        server = services.RedisServer(services.free_port(), tmp_path)
        states = JobStates.connect(FleetSettings(redis_url=server.url))
        with server.running():
            services.mark_queued(states, JOB)
            outcome = executor.submit(states.wait, JOB, LONG_ENOUGH)
            wait_for_a_subscriber(server.client())

        with server.running(), celery_backend(server.url) as celery:
            wait_for_a_subscriber(server.client())
            celery.store_result(JOB, RESULT, "SUCCESS")

            assert outcome.result(LONG_ENOUGH).status is JobStatus.SUCCEEDED
        states.close()

    def test_a_waiter_that_comes_while_redis_is_down_waits(self, tmp_path: Path, executor: ThreadPoolExecutor) -> None:
        server = services.RedisServer(services.free_port(), tmp_path)
        states = JobStates.connect(FleetSettings(redis_url=server.url))
        with server.running(), celery_backend(server.url) as celery:
            celery.store_result(JOB, RESULT, "SUCCESS")

        outcome = executor.submit(states.wait, JOB, LONG_ENOUGH)
        with server.running():
            assert outcome.result(LONG_ENOUGH).status is JobStatus.SUCCEEDED
        states.close()

    def test_states_survive_in_the_append_only_file(self, tmp_path: Path) -> None:
        server = services.RedisServer(services.free_port(), tmp_path)
        states = JobStates.connect(FleetSettings(redis_url=server.url))
        with server.running():
            services.mark_failed(states, JOB, TOO_LONG)

        with server.running():
            assert states.read(JOB).status is JobStatus.FAILED
        states.close()


class TestProgress:
    def test_before_the_first_step_it_is_nothing(self, states: JobStates) -> None:
        assert states.read_progress(JOB) == Progress()

    def test_what_was_written_is_read(self, states: JobStates) -> None:
        steps = {"one": Progress(step=37, steps=100, eta=4.1), "two": Progress(step=1)}

        states.write_progress(steps)

        assert {job_id: states.read_progress(job_id) for job_id in steps} == steps

    def test_the_newest_counts(self, states: JobStates) -> None:
        for step in (1, 2, 3):
            states.write_progress({JOB: Progress(step=step, steps=3)})

        assert states.read_progress(JOB).step == 3

    def test_nothing_to_write_is_fine(self, states: JobStates) -> None:
        states.write_progress({})

    def test_it_does_not_stay_for_ever(self, states: JobStates, redis: redis_py.Redis) -> None:
        states.write_progress({JOB: Progress(step=1)})

        assert 0 < redis.ttl(PROGRESS_KEY.format(job_id=JOB)) <= PROGRESS_LIFETIME  # type: ignore[operator]

    @pytest.mark.parametrize("stored", [b"{", b"[]", b'{"step": -1}', b'{"colour": 1}'])
    def test_what_is_no_progress_raises(self, states: JobStates, redis: redis_py.Redis, stored: bytes) -> None:
        redis.set(PROGRESS_KEY.format(job_id=JOB), stored)

        with pytest.raises(InvalidMessage) as caught:
            states.read_progress(JOB)

        assert caught.value.details == {"payload": stored.decode()}


class TestCancel:
    def test_nobody_asked(self, states: JobStates) -> None:
        assert states.cancelled(["one", "two"]) == set()

    def test_only_those_that_someone_asked_for(self, states: JobStates) -> None:
        states.request_cancel("two")

        assert states.cancelled(["one", "two", "three"]) == {"two"}

    def test_no_jobs_no_wishes(self, states: JobStates) -> None:
        assert states.cancelled([]) == set()

    def test_asking_twice_is_asking_once(self, states: JobStates) -> None:
        states.request_cancel(JOB)
        states.request_cancel(JOB)

        assert states.cancelled([JOB]) == {JOB}

    def test_a_wish_leaves_the_state_alone(self, states: JobStates) -> None:
        services.mark_queued(states, JOB)

        states.request_cancel(JOB)

        assert states.read(JOB).status is JobStatus.QUEUED

    def test_a_wish_does_not_stay_for_ever(self, states: JobStates, redis: redis_py.Redis) -> None:
        states.request_cancel(JOB)

        assert 0 < redis.ttl(CANCEL_KEY.format(job_id=JOB)) <= CANCEL_LIFETIME  # type: ignore[operator]


class TestRedisDown:
    @pytest.fixture
    def nobody(self) -> Iterator[JobStates]:
        states = JobStates.connect(FleetSettings(redis_url=f"redis://127.0.0.1:{services.free_port()}/0"))
        yield states
        states.close()

    @pytest.mark.parametrize(
        "ask",
        [
            lambda states: states.check_redis(),
            lambda states: services.mark_queued(states, JOB),
            lambda states: services.mark_failed(states, JOB, TOO_LONG),
            lambda states: states.read(JOB),
            lambda states: states.wait(JOB, 0.1),
            lambda states: states.write_progress({JOB: Progress()}),
            lambda states: states.read_progress(JOB),
            lambda states: states.request_cancel(JOB),
            lambda states: states.cancelled([JOB]),
        ],
        ids=[
            *("check_redis", "mark_queued", "mark_failed", "read", "wait"),
            *("write_progress", "read_progress", "request_cancel", "cancelled"),
        ],
    )
    def test_every_method_says_so(self, nobody: JobStates, ask: Any) -> None:
        with pytest.raises(BrokerUnavailable, match="Redis does not answer") as caught:
            ask(nobody)

        assert caught.value.field == "redis_url"
        assert "OMNIFLEET_REDIS_URL" in (caught.value.remedy or "")

    def test_connecting_asks_nothing_yet(self, nobody: JobStates) -> None:
        assert isinstance(nobody, JobStates)
