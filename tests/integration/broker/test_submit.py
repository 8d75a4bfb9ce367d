"""Submitting to a real Redis: the same request once, limits that refuse, and all or nothing."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from omnifleet import AsyncClient, Client, IdempotencyConflict, InvalidSetting, JobStatus, QueueFull, batch
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.broker.submit import DEFAULT_RETRY_AFTER, MAX_RETRY_AFTER, Submissions, queue_lists
from omnifleet_shared.errors import JobFailed, OmnifleetError, StorageUnavailable
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import ANSWER_KEY, ATTEMPTS_KEY, IDEMPOTENCY_KEY, OPEN_LIFETIME, UNFINISHED_KEY, WAKE_KEY
from omnifleet_shared.schema.job_state import STATE_KEY
from omnifleet_shared.schema.jobs import GenerateJob
from omnifleet_shared.schema.results import JobResult, ModelInfo, Timings
from omnifleet_shared.schema.tasks import TextToSound
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from support.markdown import ROOT

QUEUE = "audio-omni"
LISTS = queue_lists(QUEUE)
UNFINISHED = UNFINISHED_KEY.format(producer="web")
Connect = Callable[..., Client]


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def connect(redis_url: str, folder: object) -> Iterator[Connect]:
    """Clients with settings of their own."""
    clients: list[Client] = []

    def open_client(**settings: Any) -> Client:
        given = FleetSettings(redis_url=redis_url, storage=f"file://{folder}", redis_timeout=5, **settings)
        clients.append(Client(given))
        return clients[-1]

    yield open_client
    for client in clients:
        client.close()


class FleetOfOne:
    """Takes messages and records outcomes, as a worker does."""

    def __init__(self, redis: Redis) -> None:
        self.leases = Leases(redis, QUEUE, seconds=60)
        self.attempts = Attempts(redis, QUEUE, lifetime=3600, worker="worker-1")

    def begin(self) -> tuple[str, str]:
        taken = self.leases.take(LISTS)
        assert taken is not None
        job_id = json.loads(taken.message)["headers"]["id"]
        self.attempts.begin(job_id, taken.tag)
        return job_id, taken.tag

    def succeed(self) -> str:
        job_id, tag = self.begin()
        fields: dict[str, Any] = {"namespace": "generate", "task": "t2a", "seed": 1, "attempts": 1}
        model = ModelInfo(name="m", revision="r", licence="l")
        self.attempts.succeed(JobResult(job_id=job_id, text="x", model=model, timings=Timings(), **fields), tag)
        self.leases.ack(tag)
        return job_id

    def fail(self, error: OmnifleetError) -> str:
        job_id, tag = self.begin()
        self.attempts.fail(job_id, error, tag)
        self.leases.ack(tag)
        return job_id


@pytest.fixture
def fleet(redis: Redis) -> FleetOfOne:
    return FleetOfOne(redis)


def waiting(redis: Redis) -> int:
    return sum(int(redis.llen(one)) for one in LISTS)  # type: ignore[arg-type]


class TestIdempotency:
    def test_a_waiting_job_stands_for_its_key(self, connect: Connect, redis: Redis) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7")

        again = connect().generate("t2a", "rain", idempotency_key="order-7")

        assert again.id == first.id
        assert waiting(redis) == 1

    def test_so_does_a_running_and_a_succeeded_one(self, connect: Connect, redis: Redis, fleet: FleetOfOne) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7")
        job_id, tag = fleet.begin()
        while_running = client.generate("t2a", "rain", idempotency_key="order-7")
        fleet.attempts.retry(job_id, StorageUnavailable("away"), tag)
        while_retrying = client.generate("t2a", "rain", idempotency_key="order-7")
        fleet.leases.postpone(tag, 0)
        fleet.leases.recover()
        fleet.succeed()
        afterwards = client.generate("t2a", "rain", idempotency_key="order-7")

        assert {first.id, while_running.id, while_retrying.id, afterwards.id} == {first.id}
        assert afterwards.status() is JobStatus.SUCCEEDED
        assert waiting(redis) == 0

    @pytest.mark.parametrize(
        ("other", "differs"),
        [
            ({"text": "snow"}, ["text"]),
            ({"steps": 7, "seed": 5}, ["seed", "steps"]),
            ({"task": "t2m", "format": "flac"}, ["format", "task"]),
            ({"callback": "https://shop.example/done"}, ["callback"]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_another_request_of_its_key_is_a_conflict(
        self, connect: Connect, redis: Redis, other: dict[str, Any], differs: list[str]
    ) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7")

        with pytest.raises(IdempotencyConflict) as caught:
            client.generate(**{"task": "t2a", "text": "rain", "idempotency_key": "order-7"} | other)

        assert caught.value.details == {"differs": differs, "job_id": first.id}
        assert all(name in str(caught.value) for name in ("order-7", *differs))
        assert waiting(redis) == 1

    def test_other_media_under_its_key_are_a_conflict_and_the_same_are_not(self, connect: Connect) -> None:
        client = connect()
        first = client.edit("add", b"RIFF one", desc="rain", idempotency_key="order-7")

        assert client.edit("add", b"RIFF one", desc="rain", idempotency_key="order-7").id == first.id
        with pytest.raises(IdempotencyConflict, match="audio"):
            client.edit("add", b"RIFF two", desc="rain", idempotency_key="order-7")

    def test_when_it_is_wanted_and_how_urgently_is_no_other_request(self, connect: Connect) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7", deadline=60)

        assert client.generate("t2a", "rain", idempotency_key="order-7", deadline=90, priority="batch").id == first.id

    def test_a_conflict_outlives_the_outcome(self, connect: Connect, fleet: FleetOfOne) -> None:
        client = connect()
        client.generate("t2a", "rain", idempotency_key="order-7")
        fleet.succeed()

        with pytest.raises(IdempotencyConflict, match="text"):
            client.generate("t2a", "snow", idempotency_key="order-7")

    def test_a_conflict_in_an_event_loop(self, connect: Connect, redis_url: str, folder: object) -> None:
        connect().generate("t2a", "rain", idempotency_key="order-7")

        async def ask() -> None:
            async with AsyncClient(redis_url=redis_url, storage=f"file://{folder}") as omni:
                await omni.generate("t2a", "snow", idempotency_key="order-7")

        with pytest.raises(IdempotencyConflict, match="text"):
            asyncio.run(ask())

    def test_a_conflict_in_a_batch_is_that_jobs_own(self, connect: Connect, fleet: FleetOfOne) -> None:
        client = connect()
        client.generate("t2a", "rain", idempotency_key="order-7")
        fleet.succeed()
        requests = [batch.generate("t2a", text, idempotency_key="order-7") for text in ("snow", "rain")]

        conflict, same = client.batch(requests, in_order=True)

        assert isinstance(conflict.error, IdempotencyConflict)
        assert same.error is None

    def test_the_submission_of_another_language_finds_the_conflict_too(self, connect: Connect, redis: Redis) -> None:
        first = connect().generate("t2a", "rain", idempotency_key="order-7")
        state = STATE_KEY.format(job_id="another")
        keys = [state, "omnifleet:runs:another", WAKE_KEY.format(queue=QUEUE), QUEUE, "omnifleet:finished:audio-omni:"]
        keys += ["omnifleet:idempotency:audio-omni:order-7", state, *LISTS]
        arguments = ["another", "{}", "{}", 3600, 10, "", "call", '{"text": "0"}']

        answer = redis.eval((ROOT / "schemas/submit.lua").read_text(), len(keys), *keys, *arguments)

        verdict, other, _, _, _, differs = answer  # type: ignore[misc]
        assert (verdict, other) == (b"conflict", first.id.encode())
        assert b"text" in differs.split()
        assert waiting(redis) == 1

    def test_a_job_of_a_client_that_wrote_no_request_down_stands_for_its_key(
        self, connect: Connect, redis: Redis
    ) -> None:
        first = connect().generate("t2a", "rain", idempotency_key="order-7")
        redis.hdel(ATTEMPTS_KEY.format(job_id=first.id), "sent:request")  # as an older release leaves it

        assert connect().generate("t2a", "snow", idempotency_key="order-7").id == first.id

    def test_a_failed_one_is_replaced(self, connect: Connect, fleet: FleetOfOne) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7")
        fleet.fail(JobFailed("it broke"))

        second = client.generate("t2a", "rain", idempotency_key="order-7")

        assert second.id != first.id
        assert client.generate("t2a", "rain", idempotency_key="order-7").id == second.id

    def test_one_that_someone_asked_to_cancel_is_replaced(self, connect: Connect) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7")
        first.cancel()

        assert client.generate("t2a", "rain", idempotency_key="order-7").id != first.id

    def test_one_that_is_forgotten_is_replaced(self, connect: Connect, redis: Redis) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7")
        redis.delete(STATE_KEY.format(job_id=first.id))

        assert client.generate("t2a", "rain", idempotency_key="order-7").id != first.id

    @pytest.mark.parametrize("record", [b"{", b"[]", b"7"])
    def test_one_whose_record_is_none_is_replaced(self, connect: Connect, redis: Redis, record: bytes) -> None:
        client = connect()
        first = client.generate("t2a", "rain", idempotency_key="order-7")
        redis.set(STATE_KEY.format(job_id=first.id), record)

        assert client.generate("t2a", "rain", idempotency_key="order-7").id != first.id

    def test_many_at_once_are_one_job(self, connect: Connect, redis: Redis) -> None:
        client = connect()
        ids: list[str] = []

        def submit() -> None:
            ids.append(client.generate("t2a", "rain", idempotency_key="order-7").id)

        threads = [threading.Thread(target=submit) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(ids) == 16
        assert len(set(ids)) == waiting(redis) == 1

    def test_keys_live_as_long_as_records(self, connect: Connect, redis: Redis) -> None:
        job = connect().generate("t2a", "rain", idempotency_key="order-7")

        key = IDEMPOTENCY_KEY.format(queue=QUEUE, key="order-7")
        assert redis.get(key) == job.id.encode()
        assert redis.ttl(key) == redis.ttl(STATE_KEY.format(job_id=job.id))

    def test_a_standing_job_is_returned_even_where_the_queue_is_full(self, connect: Connect) -> None:
        client = connect(max_queued=1)
        first = client.generate("t2a", "rain", idempotency_key="order-7")

        assert client.generate("t2a", "rain", idempotency_key="order-7").id == first.id

    def test_content_makes_the_key(self, connect: Connect, redis: Redis) -> None:
        client = connect()
        sound = b"RIFF and so on"
        first = client.edit("add", sound, desc="rain", idempotency_key="auto")
        same = client.edit("Add", sound, desc="rain ", idempotency_key="auto", priority="batch", deadline=60)
        others = [
            client.edit("add", sound, desc="snow", idempotency_key="auto"),
            client.edit("add", b"other bytes", desc="rain", idempotency_key="auto"),
            client.edit("add", sound, desc="rain", idempotency_key="auto", steps=7),
            client.edit("add", sound, desc="rain", idempotency_key="auto", seed=7),
            client.edit("add", sound, desc="rain"),
        ]

        assert same.id == first.id
        assert len({first.id, *(other.id for other in others)}) == 6
        assert waiting(redis) == 6


class TestQueueLength:
    def test_one_too_many_is_refused_and_leaves_nothing(self, connect: Connect, redis: Redis) -> None:
        client = connect(max_queued=2, producer="web")
        client.generate("t2a", "rain")
        client.generate("t2a", "rain", priority="batch")
        before = sorted(redis.keys("*"))  # type: ignore[type-var, arg-type]

        with pytest.raises(QueueFull) as refused:
            client.generate("t2a", "rain", idempotency_key="order-7")

        assert refused.value.details == {"queued": 2, "limit": 2, "retry_after": DEFAULT_RETRY_AFTER}
        assert refused.value.field == "OMNIFLEET_MAX_QUEUED"
        assert f"in {DEFAULT_RETRY_AFTER} s" in str(refused.value)
        # But for the answer, which the same call is to get again.
        kept = [key for key in redis.keys("*") if not key.startswith(ANSWER_KEY.format(call="").encode())]  # type: ignore[union-attr]
        assert sorted(kept) == before
        assert waiting(redis) == 2

    def test_what_a_worker_took_makes_room(self, connect: Connect, fleet: FleetOfOne) -> None:
        client = connect(max_queued=1)
        client.generate("t2a", "rain")
        fleet.begin()

        assert client.generate("t2a", "rain").status() is JobStatus.QUEUED

    def test_when_to_come_back_follows_the_fleets_pace(self, connect: Connect, fleet: FleetOfOne) -> None:
        client = connect(max_queued=100)
        for _ in range(20):
            client.generate("t2a", "rain")
            fleet.succeed()

        # 20 jobs in 60 to 120 s, as the minute that is going on counts as far as it has come.
        assert 3 <= retry_after(connect(max_queued=1), client) <= 6


def retry_after(limited: Client, client: Client) -> int:
    client.generate("t2a", "rain")
    with pytest.raises(QueueFull) as refused:
        limited.generate("t2a", "rain")
    return int(refused.value.details["retry_after"])


class TestUnfinishedJobs:
    def test_a_producer_may_have_so_many(self, connect: Connect, redis: Redis) -> None:
        client = connect(producer="web", max_unfinished=2)
        jobs = {client.generate("t2a", "rain").id for _ in range(2)}

        with pytest.raises(QueueFull, match="2 jobs of web have no outcome yet") as refused:
            client.generate("t2a", "rain")

        assert refused.value.details == {"unfinished": 2, "limit": 2, "retry_after": DEFAULT_RETRY_AFTER}
        assert {one.decode() for one in redis.zrange(UNFINISHED, 0, -1)} == jobs  # type: ignore[union-attr]

    def test_others_are_not_concerned(self, connect: Connect) -> None:
        connect(producer="web", max_unfinished=1).generate("t2a", "rain")

        connect(producer="nightly", max_unfinished=1).generate("t2a", "rain")
        connect().generate("t2a", "rain")

    @pytest.mark.parametrize("outcome", ["success", "failure"])
    def test_an_outcome_makes_room(self, connect: Connect, fleet: FleetOfOne, outcome: str) -> None:
        client = connect(producer="web", max_unfinished=1)
        client.generate("t2a", "rain")
        if outcome == "success":
            fleet.succeed()
        else:
            fleet.fail(JobFailed("it broke"))

        assert client.generate("t2a", "rain").status() is JobStatus.QUEUED

    def test_a_retry_is_no_outcome(self, connect: Connect, fleet: FleetOfOne) -> None:
        client = connect(producer="web", max_unfinished=1)
        client.generate("t2a", "rain")
        job_id, tag = fleet.begin()
        fleet.attempts.retry(job_id, StorageUnavailable("away"), tag)

        with pytest.raises(QueueFull):
            client.generate("t2a", "rain")

    def test_what_is_older_than_any_record_does_not_count(self, connect: Connect, redis: Redis) -> None:
        client = connect(producer="web", max_unfinished=1, result_lifetime=60)
        redis.zadd(UNFINISHED, {"long-gone": time.time() - OPEN_LIFETIME - 1})

        job = client.generate("t2a", "rain")

        assert redis.zrange(UNFINISHED, 0, -1) == [job.id.encode()]
        assert 0 < redis.ttl(UNFINISHED) <= OPEN_LIFETIME  # type: ignore[operator]
        assert 0 < redis.ttl(ATTEMPTS_KEY.format(job_id=job.id)) <= OPEN_LIFETIME  # type: ignore[operator]

    def test_a_limit_needs_a_name(self) -> None:
        with pytest.raises(InvalidSetting) as refused:
            Submissions(FleetSettings(max_unfinished=1))

        assert refused.value.field == "OMNIFLEET_PRODUCER"


class TestSending:
    def test_message_and_record_and_call_come_together(self, connect: Connect, redis: Redis) -> None:
        job = connect().generate("t2a", "rain")

        [message] = redis.lrange(QUEUE, 0, -1)  # type: ignore[misc]
        assert "submission" not in json.loads(message)["properties"]
        assert redis.lrange(WAKE_KEY.format(queue=QUEUE), 0, -1) == [b"1"]
        assert JobStates(redis, 60).read(job.id).status is JobStatus.QUEUED

    def test_sending_again_after_an_answer_was_lost_sends_nothing_twice(self, connect: Connect, redis: Redis) -> None:
        job = GenerateJob(task=TextToSound(name="t2a", text="rain"))
        transport: CeleryTransport = connect(producer="web", max_unfinished=1)._transport  # type: ignore[assignment]

        assert transport.submit(job) == transport.submit(job) == job.job_id

        assert waiting(redis) == 1

    def test_a_queue_that_cannot_be_written_leaves_nothing_behind(self, connect: Connect, redis: Redis) -> None:
        client = connect(producer="web")
        redis.set(QUEUE, "in the way")

        with pytest.raises(OmnifleetError, match="could not be sent"):
            client.generate("t2a", "rain", idempotency_key="order-7")

        assert [key for key in redis.keys("*") if b"kombu" not in key] == [QUEUE.encode()]  # type: ignore[union-attr]

    def test_a_redis_without_memory_takes_nothing(self, connect: Connect, redis: Redis) -> None:
        client = connect(producer="web")
        client.generate("t2a", "rain")
        before = sorted(redis.keys("*"))  # type: ignore[type-var, arg-type]
        redis.config_set("maxmemory", "1")
        try:
            with pytest.raises(OmnifleetError, match="could not be sent"):
                client.generate("t2a", "rain", idempotency_key="order-7")
        finally:
            redis.config_set("maxmemory", "0")

        assert (sorted(redis.keys("*")), waiting(redis)) == (before, 1)  # type: ignore[type-var, arg-type]


def test_an_estimate_stays_within_its_bounds() -> None:
    submissions = Submissions(FleetSettings(max_queued=100_000))

    waits = [
        submissions.refusal("queued", 100_000, finished, seconds).details["retry_after"]
        for finished, seconds in [(0, 90), (1, 90), (3000, 90), (10**6, 90)]
    ]

    assert waits == [DEFAULT_RETRY_AFTER, MAX_RETRY_AFTER, 30, 1]


class TestLifetimes:
    """Results are kept for a minute here; what waits or runs, as long as it does."""

    def test_a_job_that_waits_or_runs_is_known_and_its_result_for_as_long_as_is_set(
        self, connect: Connect, redis: Redis, fleet: FleetOfOne
    ) -> None:
        client = connect(result_lifetime=60, producer="web", max_unfinished=5)
        job = client.generate("t2a", "rain", idempotency_key="order-7")
        state, runs = STATE_KEY.format(job_id=job.id), ATTEMPTS_KEY.format(job_id=job.id)
        same = IDEMPOTENCY_KEY.format(queue=QUEUE, key="order-7")
        fleet.attempts = Attempts(redis, QUEUE, lifetime=60, worker="worker-1")

        queued = [redis.ttl(key) for key in (state, runs, same, UNFINISHED)]
        job_id, tag = fleet.begin()
        running = [redis.ttl(key) for key in (state, runs, same)]
        fleet.attempts.retry(job_id, StorageUnavailable("away"), tag)
        retried = [redis.ttl(key) for key in (state, runs, same)]
        fleet.leases.postpone(tag, 0)
        fleet.leases.recover()
        fleet.succeed()
        done = [redis.ttl(key) for key in (state, runs, same)]

        open_ones: list[Any] = [*queued, *running, *retried]
        assert min(open_ones) > OPEN_LIFETIME - 60
        assert 0 < min(done) <= max(done) <= 60  # type: ignore[type-var,operator]

    def test_results_may_be_kept_longer_than_jobs_wait(self, connect: Connect, redis: Redis) -> None:
        job = connect(result_lifetime=2 * OPEN_LIFETIME).generate("t2a", "rain")

        assert redis.ttl(STATE_KEY.format(job_id=job.id)) > OPEN_LIFETIME  # type: ignore[operator]
