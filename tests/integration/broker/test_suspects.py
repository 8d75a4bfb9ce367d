"""Jobs that were open when their worker died, in a real Redis: they run alone, and what dies alone is put aside."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from queue import Empty
from typing import Any

import pytest
from celery import Celery
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.celery_app import configure
from omnifleet_shared.broker.leases import LeasedMessage, Leases
from omnifleet_shared.broker.queue_stats import QueueStatsReader
from omnifleet_shared.broker.submit import queue_lists
from omnifleet_shared.errors import JobCancelled, JobQuarantined, StorageUnavailable
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import LEASED_KEY, LEASES_KEY, STARTED_KEY, SUSPECTS_KEY, WAKE_KEY, WORKERS_SEEN_KEY
from omnifleet_shared.settings import FleetSettings
from omnifleet_worker.lease_renewer import LeaseRenewer
from redis import Redis

QUEUE = "audio-omni"
LISTS = queue_lists(QUEUE)
INTERACTIVE, BATCH = LISTS
SUSPECTS = SUSPECTS_KEY.format(queue=QUEUE)
STARTED = STARTED_KEY.format(queue=QUEUE)

RELEASED_RECOVER = """
local now = redis.call('TIME')
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now[1] + now[2] / 1e6, 'LIMIT', 0, 100)
for _, tag in ipairs(over) do
  local kept = redis.call('HGET', KEYS[2], tag)
  if kept then
    local cut = string.find(kept, '\\n', 1, true)
    redis.call('RPUSH', string.sub(kept, 1, cut - 1), string.sub(kept, cut + 1))
    redis.call('LPUSH', KEYS[3], '1')
  end
  redis.call('HDEL', KEYS[2], tag)
  redis.call('ZREM', KEYS[1], tag)
end
return #over
"""
"""As workers from before there were suspects run it."""


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def leases(redis: Redis) -> Leases:
    return Leases(redis, QUEUE, seconds=60)


@pytest.fixture
def attempts(redis: Redis) -> Attempts:
    return Attempts(redis, QUEUE, lifetime=100, worker="worker-1")


def take(leases: Leases, *, idle: bool = True) -> LeasedMessage:
    taken = leases.take(LISTS, idle=idle)
    assert taken is not None
    return taken


def end_leases(redis: Redis, *tags: str) -> None:
    """As when their worker is killed, and their time is over."""
    redis.zadd(LEASES_KEY.format(queue=QUEUE), {tag: float(end) for end, tag in enumerate(tags)}, xx=True)


def lose(redis: Redis, leases: Leases, *tags: str) -> None:
    end_leases(redis, *tags)
    leases.recover()


def suspect(redis: Redis, leases: Leases, attempts: Attempts, *jobs: str, place: str = INTERACTIVE) -> None:
    """Let a worker die while it runs these jobs."""
    redis.lpush(place, *jobs)
    tags = [take(leases).tag for _ in jobs]
    for job, tag in zip(jobs, tags, strict=True):
        attempts.begin(job, tag)
    lose(redis, leases, *tags)


class TestWhoIsASuspect:
    def test_a_job_that_was_open_when_its_worker_died(self, redis: Redis, leases: Leases, attempts: Attempts) -> None:
        suspect(redis, leases, attempts, "line\nfeeds\n", place=BATCH)

        taken = take(leases)

        assert (taken.message, taken.origin, taken.is_suspect) == (b"line\nfeeds\n", BATCH, True)
        assert redis.zcard(STARTED) == 0

    def test_not_one_that_had_not_begun(self, redis: Redis, leases: Leases) -> None:
        redis.lpush(BATCH, "job-1")
        lose(redis, leases, take(leases).tag)

        taken = take(leases)

        assert (taken.origin, taken.is_suspect) == (BATCH, False)

    @pytest.mark.parametrize("how", ["retried", "handed back"])
    def test_not_one_whose_worker_lives(self, redis: Redis, leases: Leases, attempts: Attempts, how: str) -> None:
        redis.lpush(INTERACTIVE, "job-1")
        tag = take(leases).tag
        attempts.begin("job-1", tag)

        if how == "retried":
            attempts.retry("job-1", StorageUnavailable("away"), tag)
        else:
            leases.postpone(tag, 0)
        lose(redis, leases, tag)

        assert not take(leases).is_suspect

    def test_not_one_that_has_its_outcome(self, redis: Redis, leases: Leases, attempts: Attempts) -> None:
        redis.lpush(INTERACTIVE, "job-1")
        tag = take(leases).tag
        attempts.begin("job-1", tag)

        attempts.fail("job-1", StorageUnavailable("away"), tag)

        lose(redis, leases, tag)
        assert leases.take(LISTS) is None
        assert redis.zcard(STARTED) == 0

    def test_a_suspect_that_is_retried_waits_where_it_was_queued(
        self, redis: Redis, leases: Leases, attempts: Attempts
    ) -> None:
        suspect(redis, leases, attempts, "job-1", place=BATCH)
        alone = take(leases)
        attempts.begin("job-1", alone.tag)

        attempts.retry("job-1", StorageUnavailable("away"), alone.tag)
        leases.postpone(alone.tag, 0)
        leases.recover()

        again = take(leases)
        assert (again.origin, again.is_suspect) == (BATCH, False)
        begun = attempts.begin("job-1", again.tag)
        assert (begun.attempt, begun.unacked_starts, begun.died_alone) == (3, 1, 0)

    def test_a_suspect_whose_worker_dies_before_it_began_is_one_still_and_nothing_is_counted(
        self, redis: Redis, leases: Leases, attempts: Attempts
    ) -> None:
        suspect(redis, leases, attempts, "job-1")
        lose(redis, leases, take(leases).tag)

        again = take(leases)

        begun = attempts.begin("job-1", again.tag)
        assert again.is_suspect
        assert (begun.attempt, begun.unacked_starts, begun.died_alone) == (2, 2, 0)

    def test_deaths_alone_are_counted_apart(self, redis: Redis, leases: Leases, attempts: Attempts) -> None:
        suspect(redis, leases, attempts, "job-1")
        begun = []

        for _ in range(3):
            tag = take(leases).tag
            begun.append(attempts.begin("job-1", tag))
            lose(redis, leases, tag)

        assert [(one.unacked_starts, one.died_alone) for one in begun] == [(2, 0), (3, 1), (4, 2)]

    def test_a_cancelled_one_does_not_begin(self, redis: Redis, leases: Leases, attempts: Attempts) -> None:
        suspect(redis, leases, attempts, "job-1")
        JobStates(redis, lifetime=100).request_cancel("job-1")

        tag = take(leases).tag

        assert attempts.begin("job-1", tag).verdict == "cancelled"
        assert attempts.fail("job-1", JobCancelled("gone"), tag) == "written"
        leases.ack(tag)
        assert leases.take(LISTS) is None

    def test_an_older_worker_that_recovers_its_lease_puts_it_back_among_them(
        self, redis: Redis, leases: Leases, attempts: Attempts
    ) -> None:
        suspect(redis, leases, attempts, "job-1", place=BATCH)
        end_leases(redis, take(leases).tag)

        keys = [key.format(queue=QUEUE) for key in (LEASES_KEY, LEASED_KEY, WAKE_KEY)]
        redis.eval(RELEASED_RECOVER, 3, *keys)

        again = take(leases)
        assert (again.message, again.origin, again.is_suspect) == (b"job-1", BATCH, True)


class TestWhoTakesThem:
    def test_one_busy_worker_steps_out_and_the_others_go_on(
        self, redis: Redis, leases: Leases, attempts: Attempts
    ) -> None:
        suspect(redis, leases, attempts, *(f"suspect-{number}" for number in range(3)))
        redis.lpush(INTERACTIVE, *(f"other-{number}" for number in range(3)))

        taken = [take(leases, idle=False).message for _ in range(4)]

        assert taken == [b"suspect-0", b"other-0", b"other-1", b"other-2"]

    def test_in_a_large_fleet_half_of_the_workers_do(self, redis: Redis, leases: Leases, attempts: Attempts) -> None:
        redis.zadd(WORKERS_SEEN_KEY.format(queue=QUEUE), {f"worker-{number}": 1.0 for number in range(5)})
        suspect(redis, leases, attempts, *(f"suspect-{number}" for number in range(4)))
        redis.lpush(INTERACTIVE, "other")

        assert [take(leases).is_suspect for _ in range(3)] == [True, True, False]

    def test_a_worker_with_nothing_else_to_do_takes_one(self, redis: Redis, leases: Leases, attempts: Attempts) -> None:
        suspect(redis, leases, attempts, *(f"suspect-{number}" for number in range(3)))

        assert [take(leases, idle=True).is_suspect for _ in range(2)] == [True, True]
        assert leases.take(LISTS, idle=False) is None

    def test_when_one_has_ended_the_next_may_be_taken(self, redis: Redis, leases: Leases, attempts: Attempts) -> None:
        suspect(redis, leases, attempts, *(f"suspect-{number}" for number in range(2)))
        redis.lpush(INTERACTIVE, "other")

        leases.ack(take(leases, idle=False).tag)

        assert take(leases, idle=False).is_suspect

    def test_one_that_died_alone_lets_the_others_go_first(
        self, redis: Redis, leases: Leases, attempts: Attempts
    ) -> None:
        suspect(redis, leases, attempts, *(f"suspect-{number}" for number in range(2)))
        poison = take(leases)
        attempts.begin("suspect-0", poison.tag)

        lose(redis, leases, poison.tag)

        assert [take(leases).message for _ in range(2)] == [b"suspect-1", b"suspect-0"]


def a_renewer(leases: Leases, slots: int = 8) -> LeaseRenewer:
    return LeaseRenewer(
        leases,
        places={"sounds": slots},
        engine_stalled=lambda: 0.0,
        engine_timeout=60,
        poll_timeout=60,
        on_lost=lambda tag: None,
    )


@pytest.fixture
def channel(redis_url: str, leases: Leases) -> Iterator[Any]:
    """A worker's channel."""
    app = Celery("suspects", set_as_current=False)
    configure(app, FleetSettings(redis_url=redis_url))
    app.conf.broker_transport_options |= {"lease_holder": a_renewer(leases)}
    with app.connection_for_read() as connection, closing(connection.channel()) as channel:
        yield channel
    app.close()


class TestAChannel:
    def test_it_delivers_a_suspect_once_all_else_has_ended_and_nothing_beside_it(
        self, redis: Redis, leases: Leases, attempts: Attempts, channel: Any
    ) -> None:
        redis.lpush(INTERACTIVE, "before")
        (before,) = channel._take()
        channel.lease_holder.track(before.tag)
        suspect(redis, leases, attempts, "suspect")
        redis.lpush(INTERACTIVE, "after")

        assert channel._take() == []
        assert channel.lease_holder.has_suspect
        assert redis.lrange(INTERACTIVE, 0, -1) == [b"after"]
        channel.lease_holder.ack(before.tag)
        (alone,) = channel._take()
        assert alone.message == b"suspect"
        assert channel._take() == []
        channel.lease_holder.ack(alone.tag)
        assert [one.message for one in channel._take()] == [b"after"]

    def test_what_waits_for_its_turn_is_handed_back_by_a_worker_that_stops(
        self, redis: Redis, leases: Leases, attempts: Attempts, channel: Any
    ) -> None:
        channel.lease_holder.track("something that runs")
        suspect(redis, leases, attempts, "suspect")
        assert channel._take() == []

        channel.lease_holder.stop_polling()
        channel.lease_holder.hand_back_waiting()

        assert channel._take() == []
        assert take(leases).is_suspect

    def test_it_takes_no_wake_up_call_from_those_that_are_idle(
        self, redis: Redis, leases: Leases, attempts: Attempts, channel: Any
    ) -> None:
        channel.lease_holder.track("something that runs")
        suspect(redis, leases, attempts, "suspect")
        redis.delete(WAKE_KEY.format(queue=QUEUE))
        assert channel._take() == []
        channel._active_queues.append(QUEUE)
        redis.lpush(WAKE_KEY.format(queue=QUEUE), "1")

        channel.client.connection = channel.client.connection_pool.get_connection()
        channel._brpop_start()
        with pytest.raises(Empty):
            channel._brpop_read()

        assert redis.llen(WAKE_KEY.format(queue=QUEUE)) == 1

    def test_the_queue_is_as_long_and_purged_with_them(
        self, redis: Redis, leases: Leases, attempts: Attempts, channel: Any
    ) -> None:
        suspect(redis, leases, attempts, "job-1")
        redis.lpush(BATCH, "another")

        assert channel._size(QUEUE) == 2
        assert channel._purge(QUEUE) == 2
        assert channel._size(QUEUE) == 0


def test_statistics_count_them_under_their_own_priority(redis: Redis, leases: Leases, attempts: Attempts) -> None:
    suspect(redis, leases, attempts, "one", place=BATCH)
    alone = take(leases)
    suspect(redis, leases, attempts, "two")
    redis.lpush(BATCH, "three")
    assert alone.is_suspect

    found = QueueStatsReader(redis, QUEUE).read()

    assert found.suspects == 1
    assert [(one.priority, one.waiting, one.leased) for one in found.priorities] == [
        ("interactive", 1, 0),
        ("batch", 1, 1),
    ]


class FleetOfWorkers:
    """Workers that poll, finish and die in any order; a job of `poison` kills its worker when it is to end."""

    def __init__(self, redis: Redis, channel: Any, poison: set[str], slots: int) -> None:
        self._redis, self._channel, self._poison, self._slots = redis, channel, poison, slots
        self._leases = Leases(redis, QUEUE, seconds=60)
        self._attempts = Attempts(redis, QUEUE, lifetime=100, worker="w")
        self._workers: list[LeaseRenewer] = []
        self._runs: list[dict[str, str]] = []
        self.done: set[str] = set()
        self.quarantined: set[str] = set()
        self.attempts: dict[str, int] = {}

    def start(self) -> None:
        self._workers.append(a_renewer(self._leases, self._slots))
        self._runs.append({})

    def poll(self, number: int) -> None:
        holder = self._workers[number]
        if len(self._runs[number]) >= self._slots:
            return
        self._channel.lease_holder = holder
        taken = self._channel._take()
        for one in taken:
            holder.track(one.tag)
        for one in taken:
            self._begin(holder, self._runs[number], one)

    def _begin(self, holder: LeaseRenewer, runs: dict[str, str], taken: LeasedMessage) -> None:
        job = json.loads(taken.message)["job"]
        start = self._attempts.begin(job, taken.tag)
        assert start.verdict == "begun"
        if start.unacked_starts > 3 and start.died_alone:
            self.quarantined.add(job)
            self._attempts.fail(job, JobQuarantined("dead"), taken.tag)
            holder.ack(taken.tag)
            return
        runs[taken.tag] = job
        self.attempts[job] = start.attempt

    def end_one(self, number: int) -> None:
        runs = self._runs[number]
        if not runs:
            return
        if self._poison & set(runs.values()):
            held = list(self._workers[number]._held)
            self._workers[number], self._runs[number] = a_renewer(self._leases, self._slots), {}
            lose(self._redis, self._leases, *held)
            return
        tag, job = runs.popitem()
        assert self._attempts.fail(job, JobCancelled("an outcome"), tag) == "written"
        self._workers[number].ack(tag)
        self.done.add(job)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    jobs=st.integers(1, 20),
    poison=st.sets(st.integers(0, 19), max_size=3),
    workers=st.integers(1, 3),
    slots=st.integers(1, 8),
    seed=st.integers(0, 2**32),
)
def test_whatever_the_order_exactly_the_poison_is_put_aside(
    redis: Redis, channel: Any, jobs: int, poison: set[int], workers: int, slots: int, seed: int
) -> None:
    redis.flushall()
    order = random.Random(seed)
    names = [f"job-{number}" for number in range(jobs)]
    poisonous = {names[number] for number in poison if number < jobs}
    for name in names:
        redis.lpush(order.choice(LISTS), json.dumps({"job": name}))
    fleet = FleetOfWorkers(redis, channel, poisonous, slots)
    for _ in range(workers):
        fleet.start()

    for _ in range(4000):
        if len(fleet.done) + len(fleet.quarantined) == jobs:
            break
        order.choice([fleet.poll, fleet.end_one])(order.randrange(workers))

    assert fleet.quarantined == poisonous
    assert fleet.done == set(names) - poisonous
    # Dead once in company at most, and then alone, where nothing kills it.
    assert all(fleet.attempts[name] <= 2 for name in fleet.done)
    assert redis.hlen(LEASED_KEY.format(queue=QUEUE)) == redis.zcard(STARTED) == redis.llen(SUSPECTS) == 0
