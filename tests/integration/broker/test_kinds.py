"""Two kinds of jobs in one queue, in a real Redis: a worker takes what it has a place for, in order within its kind."""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet_shared.broker.celery_app import configure
from omnifleet_shared.broker.kinds import KINDS, JobKind, kind_queue
from omnifleet_shared.broker.leases import FAIR_TURN, LeasedMessage, Leases
from omnifleet_shared.broker.message_snapshot import MessageSnapshot, queue_names
from omnifleet_shared.broker.queue_stats import QueueStatsReader
from omnifleet_shared.broker.removal.lost_messages import LostMessages
from omnifleet_shared.broker.removal.purge import Purge
from omnifleet_shared.broker.submit import Submissions, queue_lists
from omnifleet_shared.broker.transport import SOME_FULL_POLL_SECONDS
from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import QueueFull
from omnifleet_shared.keys import (
    CELERY_TASKS,
    LEASED_KEY,
    LEASES_KEY,
    WAKE_KEY,
    WORKERS_FAIR_KEY,
    WORKERS_KINDS_KEY,
    WORKERS_SEEN_KEY,
)
from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.lease_renewer import LeaseRenewer
from redis import Redis

QUEUE = "audio-omni"
INTERACTIVE, BATCH = LANES = queue_lists(QUEUE)
ANSWERS, BATCH_ANSWERS = queue_lists(kind_queue(QUEUE, "answers"))
TASKS: dict[JobKind, str] = {"sounds": CELERY_TASKS["generate"], "answers": CELERY_TASKS["understand"]}
WAKES = {kind: WAKE_KEY.format(queue=kind_queue(QUEUE, kind)) for kind in KINDS}


class Fleet:
    """Producers of one queue. Jobs are named by their kind and a number."""

    def __init__(self, redis: Redis, **limits: int) -> None:
        self.redis = redis
        self.leases = Leases(redis, QUEUE, seconds=60)
        self.submissions = Submissions(FleetSettings(**limits))
        self._numbers = Counter[JobKind]()

    def submit(self, kind: JobKind, times: int = 1, lane: str = INTERACTIVE, tenant: str | None = None) -> None:
        for _ in range(times):
            job = f"{kind}-{self._numbers[kind]}"
            self._numbers[kind] += 1
            about = {"id": job, "task": TASKS[kind]} | ({"tenant": tenant} if tenant else {})
            delivery = {"delivery_info": {"exchange": "", "routing_key": QUEUE}, "delivery_tag": job}
            content = {"content-type": "application/json", "content-encoding": "utf-8", "properties": delivery}
            message = json.dumps({"body": "W10=", "headers": about, **content})
            self.submissions.new(job).push(self.redis, lane, message)

    def take(self, kinds: tuple[JobKind, ...] = KINDS) -> LeasedMessage | None:
        return self.leases.take([place for kind in kinds for place in queue_lists(kind_queue(QUEUE, kind))])

    def end_lease(self, taken: LeasedMessage) -> None:
        self.redis.zadd(LEASES_KEY.format(queue=QUEUE), {taken.tag: 0}, xx=True)
        self.leases.recover()

    def report(self) -> None:
        """As the heartbeat of a worker of this release."""
        now = datetime.now(UTC)
        record = WorkerRecord(name="new", version="1", state="ready", started_at=now, reported_at=now, slots=1)
        WorkerRegistry(self.redis, QUEUE).report(record)

    def older_worker(self, *, finds_tenants: bool) -> None:
        """Lives from now on."""
        now = int(self.redis.time()[0])  # type: ignore[index]
        for key in (WORKERS_SEEN_KEY, *([WORKERS_FAIR_KEY] if finds_tenants else [])):
            self.redis.zadd(key.format(queue=QUEUE), {"old": now})


def job_of(taken: LeasedMessage | None) -> str | None:
    return None if taken is None else str(json.loads(taken.message)["headers"]["id"])


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def fleet(redis: Redis) -> Fleet:
    return Fleet(redis)


class TestTaking:
    def test_a_worker_without_places_for_sounds_takes_the_answer_behind_them(self, fleet: Fleet) -> None:
        fleet.submit("sounds", 50)
        fleet.submit("answers")

        taken = fleet.take(("answers",))

        assert job_of(taken) == "answers-0"
        assert taken is not None
        assert (taken.kind, taken.origin) == ("answers", INTERACTIVE)

    def test_a_worker_without_places_for_answers_takes_the_sound_behind_them(self, fleet: Fleet) -> None:
        fleet.submit("answers", 50)
        fleet.submit("sounds")

        assert job_of(fleet.take(("sounds",))) == "sounds-0"
        assert fleet.take(("sounds",)) is None

    def test_kinds_take_turns_where_both_have_places(self, fleet: Fleet) -> None:
        for kind in KINDS:
            fleet.submit(kind, 6)

        kinds = [taken.kind for _ in range(12) if (taken := fleet.take()) is not None]

        assert kinds == ["sounds", "answers"] * 6

    def test_batch_jobs_of_neither_kind_starve(self, fleet: Fleet) -> None:
        for kind in KINDS:
            fleet.submit(kind, 4 * FAIR_TURN)
            fleet.submit(kind, 4 * FAIR_TURN, lane=BATCH)

        taken = [one for _ in range(4 * FAIR_TURN) if (one := fleet.take()) is not None]

        assert Counter((one.kind, one.origin) for one in taken if one.origin == BATCH) == {
            ("sounds", BATCH): 2,
            ("answers", BATCH): 2,
        }

    def test_tenants_have_equal_shares_of_either_kind(self, fleet: Fleet) -> None:
        for kind in KINDS:
            fleet.submit(kind, 20, tenant="greedy")
            fleet.submit(kind, 4, tenant="small")

        taken = [fleet.take() for _ in range(16)]

        tenants = Counter((one.kind, json.loads(one.message)["headers"]["tenant"]) for one in taken if one)
        assert set(tenants.values()) == {4}

    def test_what_comes_back_is_the_next_of_its_kind(self, fleet: Fleet) -> None:
        fleet.submit("answers", 3)
        fleet.submit("answers", 3, tenant="acme")
        first = [fleet.take(("answers",)) for _ in range(2)]
        assert all(first)

        for taken in reversed(first):
            assert taken is not None
            fleet.end_lease(taken)

        assert {job_of(fleet.take(("answers",))) for _ in range(2)} == {job_of(taken) for taken in first}
        assert fleet.take(("sounds",)) is None

    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("submit"), st.sampled_from(KINDS), st.sampled_from(LANES)),
                st.tuples(st.just("take"), st.sets(st.sampled_from(KINDS), min_size=1), st.none()),
            ),
            max_size=60,
        )
    )
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def test_each_kind_is_first_come_first_served_within_its_priority(
        self, redis: Redis, steps: list[tuple[str, Any, Any]]
    ) -> None:
        redis.flushdb()
        fleet = Fleet(redis)
        waiting = {(kind, lane): deque[str]() for kind in KINDS for lane in LANES}
        numbers, taken_of = Counter[JobKind](), Counter[JobKind]()
        for what, about, lane in steps:
            if what == "submit":
                fleet.submit(about, lane=lane)
                waiting[about, lane].append(f"{about}-{numbers[about]}")
                numbers[about] += 1
                continue
            taken = fleet.take(tuple(kind for kind in KINDS if kind in about))
            with_jobs = [kind for kind in about if waiting[kind, INTERACTIVE] or waiting[kind, BATCH]]
            if taken is None:
                assert with_jobs == []
                continue
            assert taken.kind in with_jobs
            order = LANES[::-1] if taken_of[taken.kind] % FAIR_TURN == FAIR_TURN - 1 else LANES
            expected = next(one for lane in order if (one := waiting[taken.kind, lane]))
            assert job_of(taken) == expected.popleft()
            taken_of[taken.kind] += 1


class TestWhoeverCounts:
    def test_jobs_of_both_kinds_wait_in_one_queue(self, fleet: Fleet) -> None:
        fleet.submit("sounds", 3)
        fleet.submit("answers", 2)
        fleet.submit("answers", 2, tenant="acme")
        fleet.submit("answers", 1, lane=BATCH)
        fleet.take(("answers",))

        stats = QueueStatsReader(fleet.redis, QUEUE).read()

        assert [(one.waiting, one.leased) for one in stats.priorities] == [(6, 1), (1, 0)]
        assert [(one.tenant, one.waiting + one.leased) for one in stats.tenants] == [("acme", 2)]
        assert queue_names(fleet.redis) == [QUEUE]

    def test_a_limit_on_the_queue_is_one_on_both(self, redis: Redis) -> None:
        fleet = Fleet(redis, max_queued=4)
        fleet.submit("sounds", 2)
        fleet.submit("answers")
        fleet.submit("answers", tenant="acme")

        with pytest.raises(QueueFull, match="4 jobs wait"):
            fleet.submit("sounds")

    def test_answers_that_wait_are_neither_lost_nor_overlooked(self, fleet: Fleet) -> None:
        fleet.submit("answers", 2)
        fleet.submit("answers", 2, tenant="acme")

        assert LostMessages(fleet.redis, QUEUE, 100).find() == set()
        with closing(MessageSnapshot(fleet.redis)) as snapshot:
            assert sorted(snapshot.job_ids()) == [f"answers-{number}" for number in range(4)]

    def test_a_purge_cancels_both(self, fleet: Fleet) -> None:
        fleet.submit("sounds", 3)
        fleet.submit("answers", 2)
        fleet.submit("answers", 2, tenant="acme")

        assert Purge(fleet.redis, QUEUE, 100).run() == 7
        assert fleet.take() is None


class TestOlderWorkers:
    @pytest.mark.parametrize("finds_tenants", [True, False])
    def test_while_one_lives_answers_wait_in_the_lanes(self, fleet: Fleet, finds_tenants: bool) -> None:
        fleet.older_worker(finds_tenants=finds_tenants)

        fleet.submit("sounds")
        fleet.submit("answers")

        assert [json.loads(one)["headers"]["id"] for one in fleet.redis.lrange(INTERACTIVE, 0, -1)] == [  # type: ignore[union-attr]
            "answers-0",
            "sounds-0",
        ]
        taken = [fleet.take(("sounds",)) for _ in range(2)]
        assert [(job_of(one), one.kind) for one in taken if one] == [("sounds-0", "sounds"), ("answers-0", "sounds")]

    @pytest.mark.parametrize("finds_tenants", [True, False])
    def test_one_that_comes_is_given_what_waits_already(self, fleet: Fleet, finds_tenants: bool) -> None:
        for lane in LANES:
            fleet.submit("answers", 2, lane)
            fleet.submit("answers", 2, lane, tenant="acme")

        fleet.older_worker(finds_tenants=finds_tenants)
        fleet.report()

        assert not fleet.redis.exists(ANSWERS, BATCH_ANSWERS)
        assert [fleet.redis.llen(lane) for lane in LANES] == [2 if finds_tenants else 4] * 2
        assert sorted(str(job_of(fleet.take(("sounds",)))) for _ in range(8)) == [f"answers-{one}" for one in range(8)]

    def test_what_it_holds_comes_back_to_where_answers_wait(self, fleet: Fleet) -> None:
        fleet.older_worker(finds_tenants=True)
        fleet.submit("answers")
        taken = fleet.take()
        assert taken is not None
        assert str(fleet.redis.hget(LEASED_KEY.format(queue=QUEUE), taken.tag), "utf-8").startswith(f"{INTERACTIVE}\n")  # type: ignore[arg-type]

        fleet.redis.delete(
            *(key.format(queue=QUEUE) for key in (WORKERS_SEEN_KEY, WORKERS_FAIR_KEY, WORKERS_KINDS_KEY))
        )
        fleet.end_lease(taken)

        assert job_of(fleet.take(("answers",))) == "answers-0"


@pytest.fixture
def delivered() -> list[str]:
    return []


@pytest.fixture
def channel(redis: Redis, redis_url: str, delivered: list[str]) -> Iterator[Any]:
    """The channel of a worker with two places of each kind, all of them held for ever."""
    renewer = LeaseRenewer(
        Leases(redis, QUEUE, seconds=60),
        places={"sounds": 2, "answers": 2},
        engine_stalled=lambda: 0.0,
        engine_timeout=60,
        poll_timeout=60,
        on_lost=lambda tag: None,
    )
    assert renewer.leases.take([QUEUE]) is None  # Redis knows the script from now on
    app = Celery("kinds", set_as_current=False)
    configure(app, FleetSettings(redis_url=redis_url))
    app.conf.broker_transport_options["lease_holder"] = renewer
    with app.connection_for_read() as connection, closing(connection.channel()) as channel:
        app.amqp.queues[QUEUE](channel).declare()
        channel.basic_consume(QUEUE, False, lambda message: delivered.append(message.headers["id"]), "test")
        channel.client.connection = channel.client.connection_pool.get_connection()  # as kombu's poller does
        yield channel
    app.close()


def poll(channel: Any) -> None:
    channel._brpop_start()
    assert channel._brpop_read()


class TestAChannel:
    def test_it_holds_as_many_of_each_kind_as_it_has_places_for(
        self, fleet: Fleet, channel: Any, delivered: list[str]
    ) -> None:
        fleet.submit("sounds", 9)
        fleet.submit("answers", 9)

        poll(channel)

        assert sorted(delivered) == ["answers-0", "answers-1", "sounds-0", "sounds-1"]
        assert not channel.qos.can_consume()
        assert [fleet.redis.llen(place) for place in (INTERACTIVE, ANSWERS)] == [7, 7]
        assert [fleet.redis.llen(WAKES[kind]) for kind in KINDS] == [7, 7]

    def test_with_its_places_for_sounds_full_it_is_woken_for_answers_alone(
        self, fleet: Fleet, channel: Any, delivered: list[str]
    ) -> None:
        fleet.submit("sounds", 9)
        poll(channel)

        command = channel._poll_command(1)
        assert command == ("BRPOP", WAKES["answers"], SOME_FULL_POLL_SECONDS)
        fleet.submit("answers")
        poll(channel)

        assert delivered[-1] == "answers-0"
        # The tokens of the sounds are for workers that have places for them.
        assert [fleet.redis.llen(WAKES[kind]) for kind in KINDS] == [7, 0]

    def test_a_place_that_is_free_again_is_filled_without_a_token(
        self, fleet: Fleet, channel: Any, delivered: list[str]
    ) -> None:
        fleet.submit("sounds", 9)
        poll(channel)
        fleet.redis.delete(*WAKES.values())
        tag = next(iter(channel.lease_holder._held))

        channel.lease_holder.ack(tag)
        poll(channel)

        assert delivered == ["sounds-0", "sounds-1", "sounds-2"]

    def test_a_batch_leaves_a_place_of_its_kind_to_interactive_jobs(
        self, fleet: Fleet, channel: Any, delivered: list[str]
    ) -> None:
        for kind in KINDS:
            fleet.submit(kind, 9, lane=BATCH)
        poll(channel)
        assert sorted(delivered) == ["answers-0", "sounds-0"]

        fleet.submit("answers")
        poll(channel)

        assert delivered[-1] == "answers-9"
