"""Callbacks from real worker processes to a real receiver: signed, durable, and in nobody's way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from omnifleet import (
    CallbackDelivery,
    CallbackRefused,
    Client,
    InvalidJob,
    JobCancelled,
    JobHandle,
    JobQuarantined,
    JobStatus,
    TextResult,
    UnknownJob,
    verify_callback,
)
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.broker.submit import all_lists
from omnifleet_shared.errors import JobFailed
from omnifleet_shared.keys import CALLBACK_KEY, CALLBACKS_KEY
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.webhooks.outbox import Callbacks
from redis import Redis
from support import receiver as receivers
from support import services
from support.fork_server import ForkServer, is_alive
from support.receiver import Receiver

SECRET = "a secret of this very test"
WAIT = 240.0
TIMEOUT = 5.0
"""Of callbacks: a receiver that is there answers within it, however busy the machine is."""
SHORT_TIMEOUT = 3.0
WAITING = CALLBACKS_KEY.format(queue="audio-omni")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receivers.receiver() as running:
        yield running


@pytest.fixture
def settings(redis_url: str, folder: Path) -> FleetSettings:
    return FleetSettings(redis_url=redis_url, storage=f"file://{folder}", lease=4.0)


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def omni(settings: FleetSettings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@dataclass
class Worker:
    """A worker process that was forked ready."""

    pid: int
    log: Path

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait_until_ready(self) -> None:
        services.wait_until(lambda: " ready." in self.log.read_text(), WAIT, f"worker ready, see {self.log}")

    def wait_until_gone(self) -> None:
        services.wait_until(lambda: not is_alive(self.pid), WAIT, "the worker's death")


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(
    settings: FleetSettings, receiver: Receiver, fork_server: ForkServer, tmp_path: Path
) -> Iterator[StartWorker]:
    environment = {
        "OMNIFLEET_REDIS_URL": settings.redis_url,
        "OMNIFLEET_STORAGE": settings.storage,
        "OMNIFLEET_LEASE": "4",
        "OMNIFLEET_RETRY_BACKOFF": "0.2",
        "OMNIFLEET_CALLBACK_HOSTS": f"hooks.example.com,http://{receiver.host}",
        "OMNIFLEET_CALLBACK_SECRET": SECRET,
        "OMNIFLEET_CALLBACK_TIMEOUT": str(TIMEOUT),
        "OMNIFLEET_CALLBACK_ATTEMPTS": "4",
    }
    workers: list[Worker] = []

    def start(ready: bool = True, **more: str) -> Worker:
        log = tmp_path / f"worker-{len(workers)}.log"
        log.touch()
        pid = fork_server.fork(environment | more, log, f"--hostname=scripted-{len(workers)}@%h")
        workers.append(Worker(pid, log))
        if ready:
            workers[-1].wait_until_ready()
        return workers[-1]

    yield start
    for worker in workers:
        with suppress(ProcessLookupError):
            worker.kill()
        worker.wait_until_gone()
        assert SECRET not in worker.log.read_text()
        assert "hunter2" not in worker.log.read_text()


def ask(omni: Client, receiver: Receiver, what: str = "time", steps: int = 2, **options: Any) -> JobHandle[TextResult]:
    options = {"callback": receiver.url} | options
    return omni.understand(question=what, max_new_tokens=steps, **options)


def settled(job: JobHandle[Any]) -> CallbackDelivery:
    def is_settled() -> bool:
        delivery = job.callback()
        return delivery is not None and delivery.status != "pending"

    services.wait_until(is_settled, WAIT, "the callback's end")
    delivery = job.callback()
    assert delivery is not None
    return delivery


def told(receiver: Receiver, place: int = -1) -> Any:
    """What the receiver was told, once its signature is verified."""
    request = receiver.requests[place]
    return verify_callback(request.body, request.headers, SECRET)


class TestOutcomes:
    def test_every_kind_of_outcome_is_posted_signed(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker, redis: Redis
    ) -> None:
        start_worker()
        done = ask(omni, receiver)
        long = ask(omni, receiver, steps=400)
        bad = omni.edit("add", b"no sound at all", desc="rain", callback=receiver.url)
        silent = omni.understand(question="time", max_new_tokens=2)
        long.cancel()

        deliveries = [settled(job) for job in (done, long, bad)]

        outcomes = {told(receiver, place).job_id: told(receiver, place) for place in range(3)}
        assert [delivery.status for delivery in deliveries] == ["delivered"] * 3
        assert [delivery.delivery_id for delivery in deliveries] == [
            outcomes[job.id].delivery_id for job in (done, long, bad)
        ]
        assert outcomes[done.id].result == done.result(WAIT).record
        assert (outcomes[long.id].status, type(outcomes[long.id].exception)) == (JobStatus.CANCELLED, JobCancelled)
        assert outcomes[bad.id].error.type == "MediaUnreadable"
        assert {request.path for request in receiver.requests} == {"/hook?token=hunter2"}
        assert {request.headers["Content-Type"] for request in receiver.requests} == {"application/json"}
        silent.result(WAIT)
        assert silent.callback() is None
        assert len(receiver.requests) == 3
        assert redis.zcard(WAITING) == 0
        assert redis.hkeys(CALLBACK_KEY.format(job_id=done.id)) != []
        assert not redis.hexists(CALLBACK_KEY.format(job_id=done.id), "body")

    def test_a_job_that_was_dead_lettered_is_told_too(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker
    ) -> None:
        job = ask(omni, receiver, what="die")
        for _ in range(2):  # in company, as far as anybody knows, and alone
            start_worker(ready=False, OMNIFLEET_MAX_DELIVERIES="1").wait_until_gone()
        start_worker(OMNIFLEET_MAX_DELIVERIES="1")

        assert settled(job).status == "delivered"

        assert type(told(receiver).exception) is JobQuarantined

    def test_of_a_job_that_cannot_be_read_the_sender_is_told_as_well(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker
    ) -> None:
        start_worker()
        job = ask(omni, receiver, steps=2)
        settled(job)
        from omnifleet.transport.celery import CeleryTransport
        from omnifleet_shared.schema.jobs import UnderstandJob
        from omnifleet_shared.schema.tasks import Question

        odd = UnderstandJob(task=Question(text="x"), callback=receiver.url, schema_version=2)
        sent = odd.model_copy(update={"temperature": 99.0})
        transport = CeleryTransport(omni._settings)
        transport.submit(sent)
        transport.close()

        assert settled(omni.job(sent.job_id)).status == "delivered"

        assert type(told(receiver).exception) is InvalidJob


class TestRefusal:
    @pytest.mark.parametrize(
        ("callback", "more", "match"),
        [
            ("https://evil.example.org/x", {}, "https://evil.example.org:443 are not allowed"),
            ("http://hooks.example.com/x", {}, "http://hooks.example.com:80 are not allowed"),
            ("https://hooks.example.com/x", {"OMNIFLEET_CALLBACK_SECRET": ""}, "no secret"),
        ],
    )
    def test_a_job_with_a_callback_that_is_not_allowed_fails_before_it_starts(
        self,
        omni: Client,
        receiver: Receiver,
        start_worker: StartWorker,
        callback: str,
        more: dict[str, str],
        match: str,
    ) -> None:
        start_worker(**more)

        job = ask(omni, receiver, callback=callback)

        with pytest.raises(CallbackRefused, match=match):
            job.result(WAIT)
        assert job.callback() is None
        assert receiver.requests == []

    def test_of_a_job_that_nobody_knows(self, omni: Client) -> None:
        with pytest.raises(UnknownJob):
            omni.job("nobody").callback()


class TestReceivers:
    def test_an_error_is_tried_again_and_a_redirect_not_followed(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker
    ) -> None:
        start_worker()
        receiver.answers[:] = [500, 307]

        job = ask(omni, receiver)

        delivery = settled(job)
        assert (delivery.status, delivery.attempts, delivery.error) == ("delivered", 3, None)
        assert [told(receiver, place).delivery_id for place in range(3)] == [delivery.delivery_id] * 3
        assert {request.path for request in receiver.requests} == {"/hook?token=hunter2"}

    def test_it_is_given_up_after_so_many_times_and_says_why(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker
    ) -> None:
        start_worker()
        receiver.answers[:] = [503] * 9

        job = ask(omni, receiver)

        delivery = settled(job)
        assert (delivery.status, delivery.attempts) == ("failed", 4)
        assert delivery.error == "127.0.0.1 answered 503"
        assert job.status() is JobStatus.SUCCEEDED
        assert len(receiver.requests) == 4

    def test_slow_receivers_are_cut_off_and_hold_up_neither_jobs_nor_other_receivers(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker
    ) -> None:
        def drip(handler: BaseHTTPRequestHandler) -> None:
            # A byte now and then, without end: no single read of it would time out.
            until = time.monotonic() + 20 * SHORT_TIMEOUT
            try:
                while time.monotonic() < until:
                    handler.wfile.write(b"H")
                    time.sleep(SHORT_TIMEOUT / 5)
            except OSError:
                dripped.append(time.monotonic())

        dripped: list[float] = []
        with receivers.receiver() as other:
            hosts = f"http://{receiver.host},http://{other.host}"
            start_worker(
                OMNIFLEET_CALLBACK_HOSTS=hosts,
                OMNIFLEET_CALLBACK_ATTEMPTS="1",
                OMNIFLEET_CALLBACK_TIMEOUT=str(SHORT_TIMEOUT),
            )
            receiver.answers[:] = [drip] * 30
            slow = [ask(omni, receiver) for _ in range(12)]
            services.wait_until(lambda: len(receiver.requests) >= 4, WAIT, "the slow receiver's busy")

            quick = [ask(omni, other) for _ in range(6)]
            for job in quick:
                assert settled(job).status == "delivered"

            assert len(dripped) < 12, "the slow one had all its turns first"
            assert {settled(job).status for job in slow} == {"failed"}
            assert "does not answer" in (settled(slow[0]).error or "")


class TestKilledWorkers:
    def test_what_a_killed_worker_was_posting_another_one_posts(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker
    ) -> None:
        killed: list[Worker] = []

        def kill(handler: BaseHTTPRequestHandler) -> None:
            # The outcome is recorded, the callback is on its way, and nobody will hear its answer.
            killed[0].kill()

        receiver.answers[:] = [kill]
        killed.append(start_worker())
        job = ask(omni, receiver)
        killed[0].wait_until_gone()
        delivery = job.callback()
        assert delivery is not None and delivery.status == "pending"

        start_worker()

        delivery = settled(job)
        assert (delivery.status, delivery.attempts) == ("delivered", 2)
        assert told(receiver, 0).delivery_id == told(receiver, 1).delivery_id
        assert job.result(1).attempts == 1

    def test_outcomes_of_workers_that_post_none_are_left_to_those_that_do(
        self, omni: Client, receiver: Receiver, start_worker: StartWorker, redis: Redis
    ) -> None:
        job_id = omni.understand(question="time", max_new_tokens=2, callback=receiver.url).id
        taken = Leases(redis, "audio-omni", seconds=60).take(all_lists("audio-omni"))
        assert taken is not None
        attempts = Attempts(redis, "audio-omni", lifetime=3600, worker="a worker that is gone")
        assert attempts.fail(job_id, JobFailed("it broke"), taken.tag, receiver.url) == "written"

        start_worker()

        assert settled(omni.job(job_id)).status == "delivered"
        assert type(told(receiver).exception) is JobFailed


class TestClaims:
    """The script's own promises, without a worker."""

    @pytest.fixture
    def wish(self, omni: Client, receiver: Receiver, redis: Redis) -> str:
        """A job whose outcome waits to be posted."""
        job_id = ask(omni, receiver).id
        taken = Leases(redis, "audio-omni", seconds=60).take(all_lists("audio-omni"))
        assert taken is not None
        attempts = Attempts(redis, "audio-omni", lifetime=3600, worker="w")
        attempts.fail(job_id, JobFailed("it broke"), taken.tag, receiver.url)
        # Sent again after a lost connection, it wishes for nothing more.
        before = redis.hget(CALLBACK_KEY.format(job_id=job_id), "id")
        assert attempts.fail(job_id, JobFailed("it broke"), taken.tag, receiver.url) == "written"
        assert redis.hget(CALLBACK_KEY.format(job_id=job_id), "id") == before
        return job_id

    def test_a_claimed_one_is_nobody_else_s_until_its_time_is_over(self, wish: str, redis: Redis) -> None:
        callbacks = Callbacks(redis, "audio-omni")
        first = callbacks.claim(0.3)
        assert first is not None and first.attempts == 1
        assert json.loads(first.body)["job_id"] == wish
        assert callbacks.claim(60) is None

        services.wait_until(lambda: redis.zcount(WAITING, "-inf", redis.time()[0]) > 0)  # type: ignore[index, operator]
        second = callbacks.claim(60)

        assert second is not None and second.attempts == 2
        assert (second.delivery_id, second.body) == (first.delivery_id, first.body)
        callbacks.delivered(first)
        assert redis.zcard(WAITING) == 1
        callbacks.delivered(second)
        assert redis.zcard(WAITING) == 0

    def test_one_that_is_put_back_was_not_posted(self, wish: str, redis: Redis, omni: Client) -> None:
        callbacks = Callbacks(redis, "audio-omni")
        claimed = callbacks.claim(60)
        assert claimed is not None

        callbacks.release_claim(claimed, 0)

        delivery = omni.job(wish).callback()
        assert delivery is not None
        assert (delivery.status, delivery.attempts, delivery.error) == ("pending", 0, None)
        again = callbacks.claim(60)
        assert again is not None and again.attempts == 1

    def test_one_whose_record_has_expired_is_dropped(self, wish: str, redis: Redis) -> None:
        redis.delete(CALLBACK_KEY.format(job_id=wish))

        assert Callbacks(redis, "audio-omni").claim(60) is None
        assert redis.zcard(WAITING) == 0

    def test_neither_outcome_nor_wish_is_written_without_the_lease(self, omni: Client, redis: Redis) -> None:
        attempts = Attempts(redis, "audio-omni", lifetime=3600, worker="w")
        job_id = omni.generate("t2a", "rain").id

        assert attempts.fail(job_id, JobFailed("late"), "lost", "https://hooks.example.com/") == "lost"

        assert redis.zcard(WAITING) == 0
        assert omni.job(job_id).callback() is None
