"""Tenants in one queue, in a real Redis: whose message is next, and what each is charged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.leases import LeasedMessage, Leases
from omnifleet_shared.broker.message_snapshot import MessageSnapshot, queue_names
from omnifleet_shared.broker.removal.lost_messages import LostMessages
from omnifleet_shared.broker.removal.purge import Purge
from omnifleet_shared.broker.submit import AlreadySubmitted, Submissions, fair_lanes, queue_lists
from omnifleet_shared.broker.tenants.fair_queue import HALF_LIFE
from omnifleet_shared.broker.tenants.tenant_limits import TenantLimit, TenantLimits
from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import InvalidSetting, JobFailed, QueueFull, QuotaExceeded, StorageUnavailable
from omnifleet_shared.keys import (
    BINDINGS,
    LEASES_KEY,
    TENANT_LEASES_KEY,
    TENANT_USE_KEY,
    WORKER_RECORDS_KEY,
    WORKERS_SEEN_KEY,
)
from omnifleet_shared.settings import FleetSettings
from redis import Redis

QUEUE = "audio-omni"
INTERACTIVE, BATCH = LISTS = queue_lists(QUEUE)
LANE = fair_lanes(QUEUE)[0]
RELEASED_TAKE = """
local message = redis.call('RPOP', KEYS[1])
if not message then return false end
redis.call('HSET', KEYS[2], ARGV[1], KEYS[1] .. '\\n' .. message)
redis.call('ZADD', KEYS[3], redis.call('TIME')[1] + 60, ARGV[1])
return message
"""
"""What workers from before there were tenants know of a queue: its lists."""


class Fleet:
    """Producers and workers of one queue. Jobs are named by their tenant and a number."""

    def __init__(self, redis: Redis, **limits: int) -> None:
        self.redis = redis
        self.leases = Leases(redis, QUEUE, seconds=60)
        self.attempts = Attempts(redis, QUEUE, lifetime=100, worker="worker-1")
        self.registry = WorkerRegistry(redis, QUEUE)
        self.submissions = Submissions(FleetSettings(**limits))
        self._numbers: Counter[str | None] = Counter()

    def submit(self, tenant: str | None, times: int = 1, place: str = INTERACTIVE) -> None:
        for _ in range(times):
            job = f"{tenant}-{self._numbers[tenant]}"
            self._numbers[tenant] += 1
            headers = {"id": job} | ({"tenant": tenant} if tenant else {})
            self.submissions.new(job).push(self.redis, place, json.dumps({"body": "W10=", "headers": headers}))

    def take(self) -> LeasedMessage:
        taken = self.leases.take(LISTS)
        assert taken is not None
        return taken

    def take_many(self, number: int) -> list[str]:
        return [job_of(self.take()) for _ in range(number)]

    def run(self, seconds: float = 1.0) -> str:
        """Take a message, and do its job."""
        taken = self.take()
        self.finish(taken, seconds)
        return job_of(taken)

    def finish(self, taken: LeasedMessage, seconds: float) -> None:
        error = JobFailed("it broke")
        assert self.attempts.fail(job_of(taken), error, taken.tag, gpu_seconds=seconds) == "written"

    def lose(self, taken: LeasedMessage) -> None:
        """As when its worker is killed while it runs."""
        self.attempts.begin(job_of(taken), taken.tag)
        self.end_lease(taken)

    def end_lease(self, taken: LeasedMessage) -> None:
        self.redis.zadd(LEASES_KEY.format(queue=QUEUE), {taken.tag: 0}, xx=True)
        self.leases.recover()

    def report(self, name: str = "new") -> None:
        now = datetime.now(UTC)
        record = WorkerRecord(name=name, version="1", state="ready", started_at=now, reported_at=now, slots=1)
        self.registry.report(record)

    def older_worker(self) -> None:
        """Lives from now on."""
        self.redis.hset(WORKER_RECORDS_KEY.format(queue=QUEUE), "old", "{}")
        self.redis.zadd(WORKERS_SEEN_KEY.format(queue=QUEUE), {"old": int(self.redis.time()[0])})

    def released_take(self) -> str | None:
        keys = [INTERACTIVE, f"omnifleet:leased:{QUEUE}", LEASES_KEY.format(queue=QUEUE)]
        message = self.redis.eval(RELEASED_TAKE, 3, *keys, "old-tag")  # type: ignore[no-untyped-call]
        return None if message is None else str(json.loads(message)["headers"]["id"])


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def fleet(redis: Redis) -> Fleet:
    return Fleet(redis)


def job_of(taken: LeasedMessage) -> str:
    return str(json.loads(taken.message)["headers"]["id"])


def tenants_of(jobs: Sequence[str]) -> list[str]:
    return [job.rpartition("-")[0] for job in jobs]


class TestWhoIsNext:
    def test_without_tenants_first_come_first_served(self, fleet: Fleet) -> None:
        fleet.submit(None, 5)

        assert fleet.take_many(5) == [f"None-{number}" for number in range(5)]
        assert fleet.redis.keys("omnifleet:tenant*") == []

    def test_a_newcomer_waits_for_nobodys_ten_thousand(self, fleet: Fleet) -> None:
        fleet.submit("greedy", 300)
        fleet.take_many(8)

        fleet.submit("small")

        assert fleet.run() == "small-0"

    def test_nor_for_what_was_charged_too_much(self, fleet: Fleet) -> None:
        fleet.submit("greedy", 300)
        for taken in [fleet.take() for _ in range(8)]:
            fleet.finish(taken, seconds=0.01)

        fleet.submit("small")

        assert "small-0" in [fleet.run(seconds=0.01) for _ in range(2)]

    def test_equal_tenants_take_turns(self, fleet: Fleet) -> None:
        for tenant in ("a", "b", "c"):
            fleet.submit(tenant, 4)

        done = [fleet.run() for _ in range(12)]

        assert all(Counter(tenants_of(done[:size]))["a"] <= -(-size // 3) for size in range(1, 13))
        assert [job for job in done if job[0] == "b"] == ["b-0", "b-1", "b-2", "b-3"]

    def test_by_the_time_that_jobs_took_and_not_by_their_number(self, fleet: Fleet) -> None:
        fleet.submit("long", 40)
        fleet.submit("short", 40)
        spent = Counter[str]()

        for _ in range(40):
            taken = fleet.take()
            tenant = tenants_of([job_of(taken)])[0]
            seconds = 9 if tenant == "long" else 1
            spent[tenant] += seconds
            fleet.finish(taken, seconds)

        assert abs(spent["long"] - spent["short"]) <= 18

    def test_a_job_is_charged_before_it_ends_so_that_nobody_gets_all_slots(self, fleet: Fleet) -> None:
        fleet.submit("a", 20)
        fleet.submit("b", 20)

        assert Counter(tenants_of(fleet.take_many(10))) == {"a": 5, "b": 5}

    def test_jobs_without_a_tenant_count_as_one_tenants(self, fleet: Fleet) -> None:
        fleet.submit(None, 20)
        fleet.submit("a", 20)
        fleet.submit("b", 20)

        assert Counter(tenants_of([fleet.run() for _ in range(15)])) == {"None": 5, "a": 5, "b": 5}

    def test_who_was_away_has_saved_nothing_up(self, fleet: Fleet) -> None:
        fleet.submit("a", 1)
        fleet.submit("b", 60)
        for _ in range(41):
            fleet.run()

        fleet.submit("a", 20)

        assert Counter(tenants_of([fleet.run() for _ in range(10)]))["a"] <= 6

    def test_a_debt_halves_with_time(self, fleet: Fleet) -> None:
        fleet.submit("a", 40)
        fleet.submit("b", 40)
        fleet.run(seconds=40)
        served = tenants_of([fleet.run() for _ in range(8)])
        assert served == ["b"] * 8

        # Four half-lives pass.
        fleet.redis.hincrbyfloat(LANE, "epoch", -4 * HALF_LIFE)

        # What is left of the debt is worth 2 seconds.
        assert Counter(tenants_of([fleet.run() for _ in range(8)]))["a"] >= 2

    def test_numbers_are_counted_anew_before_they_grow_too_large(self, fleet: Fleet) -> None:
        fleet.submit("a", 5)
        fleet.submit("b", 5)
        fleet.run()
        fleet.redis.hincrbyfloat(LANE, "epoch", -5000 * HALF_LIFE)

        served = tenants_of([fleet.run() for _ in range(8)])

        assert {Counter(served[turn : turn + 2])["a"] for turn in range(0, 8, 2)} == {1}
        assert float(fleet.redis.hget(LANE, "time") or 0) < 100

    def test_lanes_stay_apart(self, fleet: Fleet) -> None:
        fleet.submit("a", 2, place=BATCH)
        fleet.submit("b", 2)

        assert tenants_of(fleet.take_many(4)) == ["b", "b", "a", "a"]

    def test_a_weight_of_three_is_three_times_the_time(self, fleet: Fleet) -> None:
        TenantLimits(fleet.redis).write(TenantLimit("a", weight=3))
        fleet.submit("a", 40)
        fleet.submit("b", 40)

        assert Counter(tenants_of([fleet.run() for _ in range(40)])) == {"a": 30, "b": 10}

    @pytest.mark.parametrize(
        ("limit", "field"),
        [
            (TenantLimit("a b"), "tenant"),
            (TenantLimit("a", weight=0), "weight"),
            (TenantLimit("a", weight=float("nan")), "weight"),
            (TenantLimit("a", gpu_seconds=-1), "gpu_seconds"),
        ],
    )
    def test_limits_that_will_not_do_are_refused(self, fleet: Fleet, limit: TenantLimit, field: str) -> None:
        with pytest.raises(InvalidSetting) as refused:
            TenantLimits(fleet.redis).write(limit)

        assert refused.value.field == field


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "finish", "finish", "retry", "kill"]),
        st.integers(0, 3),
        st.sampled_from([0.5, 1.0, 2.0]),
    ),
    min_size=60,
    max_size=120,
)


@given(actions=ACTIONS, weights=st.lists(st.sampled_from([1.0, 2.0, 4.0]), min_size=3, max_size=3))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_becomes_of_jobs_each_tenant_gets_its_share(
    redis_url: str, actions: list[tuple[str, int, float]], weights: list[float]
) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
        fleet, held = Fleet(redis), list[LeasedMessage]()
        shares = dict(zip("abc", weights, strict=True))
        for tenant, weight in shares.items():
            TenantLimits(redis).write(TenantLimit(tenant, weight))
            fleet.submit(tenant, 130)
        served = dict.fromkeys(shares, 0.0)

        for what, slot, seconds in actions:
            if what == "take" and len(held) < 4:
                held.append(fleet.take())
            elif held:
                taken = held.pop(slot % len(held))
                served[job_of(taken)[0]] += end(fleet, taken, what, seconds)

        # A job more or less for each slot, and for the one that is next.
        behind = [served[tenant] / weight for tenant, weight in shares.items()]
        assert max(behind) - min(behind) <= 2 * 5 * 2.0 / min(weights)


def end(fleet: Fleet, taken: LeasedMessage, how: str, seconds: float) -> float:
    """End a run in one way or another; gives the seconds that it counts for."""
    if how == "kill":
        held = fleet.redis.hget(TENANT_LEASES_KEY.format(queue=QUEUE), taken.tag)
        fleet.lose(taken)
        return float(held.split(b"\n")[2]) if held else 0.0
    if how == "retry":
        fleet.attempts.retry(job_of(taken), StorageUnavailable("away"), taken.tag, gpu_seconds=seconds)
        fleet.end_lease(taken)
    else:
        fleet.finish(taken, seconds)
    return seconds


class TestWhatIsCharged:
    def test_use_is_kept_by_tenant(self, fleet: Fleet) -> None:
        fleet.submit("a", 2)
        taken = fleet.take()
        fleet.attempts.retry(job_of(taken), StorageUnavailable("away"), taken.tag, gpu_seconds=0.5)
        fleet.end_lease(taken)
        fleet.submit(None)
        fleet.submit("b")

        for _ in range(4):
            fleet.run(seconds=2)

        used = {name.decode(): float(seconds) for name, seconds in fleet.redis.hgetall(TENANT_USE_KEY).items()}
        assert used == {"a": 4.5, "b": 2.0}
        assert fleet.redis.hlen(TENANT_LEASES_KEY.format(queue=QUEUE)) == 0

    def test_what_never_ran_is_given_back(self, fleet: Fleet) -> None:
        fleet.submit("a", 3)
        fleet.submit("b", 3)
        for _ in range(6):
            fleet.end_lease(fleet.take())

        assert tenants_of([fleet.run() for _ in range(6)]).count("a") == 3
        assert fleet.redis.hlen(TENANT_LEASES_KEY.format(queue=QUEUE)) == 0

    @pytest.mark.usefixtures("one_day")
    def test_a_quota_of_gpu_seconds_refuses_jobs_once_it_is_used(self, fleet: Fleet) -> None:
        TenantLimits(fleet.redis).write(TenantLimit("a", gpu_seconds=5))
        fleet.submit("a", 3)
        fleet.run(seconds=4)
        fleet.submit("a")
        fleet.run(seconds=4)

        with pytest.raises(QuotaExceeded) as refused:
            fleet.submit("a")

        assert refused.value.field == "tenant"
        assert 0 < refused.value.details["retry_after"] <= 86_400
        fleet.submit("b")
        fleet.submit(None)
        # What was sent before is done.
        assert sorted(tenants_of(fleet.take_many(4))) == ["None", "a", "a", "b"]
        TenantLimits(fleet.redis).write(TenantLimit("a"))
        fleet.submit("a")


class TestOlderWorkers:
    def test_find_what_is_sent_while_they_live(self, fleet: Fleet) -> None:
        fleet.report()
        fleet.older_worker()

        fleet.submit("a")

        assert fleet.released_take() == "a-0"

    def test_find_what_was_sent_before_they_came(self, fleet: Fleet) -> None:
        fleet.submit("a", 3)
        fleet.submit("b", 1)
        assert fleet.released_take() is None
        fleet.older_worker()

        fleet.report()

        assert sorted(tenants_of([str(fleet.released_take()) for _ in range(4)])) == ["a", "a", "a", "b"]
        assert fleet.redis.hget(LANE, "jobs") == b"0"

    def test_leave_the_queue_fair_once_they_are_gone(self, fleet: Fleet) -> None:
        fleet.older_worker()
        fleet.report()
        fleet.submit("greedy", 5)
        fleet.redis.zrem(WORKERS_SEEN_KEY.format(queue=QUEUE), "old")
        fleet.submit("greedy", 50)
        fleet.submit("small")

        assert "small-0" in [fleet.run() for _ in range(3)]

    def test_put_back_what_a_worker_of_today_had(self, fleet: Fleet) -> None:
        fleet.submit("a")
        taken = fleet.take()
        fleet.older_worker()
        # As an older worker does, when the lease is over.
        fleet.redis.hdel(f"omnifleet:leased:{QUEUE}", taken.tag)
        fleet.redis.zrem(LEASES_KEY.format(queue=QUEUE), taken.tag)
        fleet.redis.rpush(taken.origin, taken.message)

        fleet.report()

        assert fleet.redis.hlen(TENANT_LEASES_KEY.format(queue=QUEUE)) == 0
        assert fleet.take().message == taken.message

    def test_a_worker_that_ended_is_not_missed(self, fleet: Fleet) -> None:
        fleet.report("one")
        fleet.report("two")
        fleet.registry.remove("one")

        fleet.submit("a")

        assert fleet.released_take() is None
        assert job_of(fleet.take()) == "a-0"


class TestEverythingElseSeesThem:
    def test_so_do_older_releases_that_look_for_lost_messages_and_needed_files(self, fleet: Fleet) -> None:
        fleet.submit("a", 2)
        fleet.submit("b", 1, place=BATCH)
        fleet.submit(None)

        # As they find all queues, and read their lists.
        bindings = {key.decode().removeprefix(BINDINGS): key for key in fleet.redis.keys(f"{BINDINGS}*")}
        queues = [
            name
            for name, key in bindings.items()
            if any(one.decode().rpartition("\x06\x16")[2] == name for one in fleet.redis.smembers(key))
        ]
        found = [one for queue in queues for place in queue_lists(queue) for one in fleet.redis.lrange(place, 0, -1)]

        assert sorted(json.loads(one)["headers"]["id"] for one in found) == ["None-0", "a-0", "a-1", "b-0"]
        assert queue_names(fleet.redis) == [QUEUE]

    def test_purged_jobs_of_tenants_are_cancelled(self, fleet: Fleet) -> None:
        fleet.submit("a", 3)
        fleet.submit(None, 2)

        assert Purge(fleet.redis, QUEUE, lifetime=100).run() == 5
        assert fleet.leases.take(LISTS) is None
        assert fleet.redis.hget(LANE, "jobs") == b"0"

    def test_the_limit_on_waiting_jobs_counts_them(self, redis: Redis) -> None:
        fleet = Fleet(redis, max_queued=3)
        fleet.submit("a", 2)
        fleet.submit(None)

        with pytest.raises(QueueFull):
            fleet.submit("b")

    def test_a_snapshot_has_them(self, fleet: Fleet) -> None:
        fleet.submit("a", 2)
        fleet.submit("b", 1, place=BATCH)
        fleet.submit(None)
        fleet.take()

        snapshot = MessageSnapshot(fleet.redis, [QUEUE])

        assert sorted(snapshot.job_ids()) == ["None-0", "a-0", "a-1", "b-0"]
        snapshot.close()
        assert fleet.redis.keys("omnifleet:snapshot:*") == []

    def test_none_is_taken_for_lost_until_its_list_is_deleted(self, fleet: Fleet) -> None:
        fleet.submit("a", 2)
        fleet.submit("b", 1)
        lost = LostMessages(fleet.redis, QUEUE, lifetime=100)
        assert lost.find() == set()

        fleet.redis.delete(f"{LANE}:jobs:a")

        assert job_of(fleet.take()) == "b-0"
        assert lost.find() == {"a-0", "a-1"}

    def test_a_suspect_is_still_its_tenants(self, fleet: Fleet) -> None:
        fleet.submit("a")
        fleet.lose(fleet.take())

        taken = fleet.take()
        fleet.finish(taken, seconds=3)

        assert taken.is_suspect
        assert fleet.redis.hget(TENANT_USE_KEY, "a") == b"3"

    def test_the_same_job_again_is_sent_once(self, fleet: Fleet) -> None:
        message = json.dumps({"headers": {"id": "job", "tenant": "a"}})
        for _ in range(2):
            try:
                fleet.submissions.new("job").push(fleet.redis, INTERACTIVE, message)
            except AlreadySubmitted:
                continue

        assert fleet.redis.hget(LANE, "jobs") == b"1"

    @pytest.mark.parametrize("text", ['{"tenant": "a"}', '"tenant": "a"', "tenant: a"])
    def test_a_text_that_looks_like_the_header_is_none(self, fleet: Fleet, text: str) -> None:
        message = json.dumps({"headers": {"id": "job", "kwargsrepr": text}})

        fleet.submissions.new("job").push(fleet.redis, INTERACTIVE, message)

        assert fleet.redis.llen(INTERACTIVE) == 1


def test_taking_costs_the_same_however_many_tenants_are_idle(fleet: Fleet) -> None:
    for number in count():
        fleet.submit(f"idle-{number}")
        fleet.run(seconds=0.001)
        if number == 200:
            break
    fleet.submit("a", 3)

    assert tenants_of([fleet.run() for _ in range(3)]) == ["a", "a", "a"]
    # Those whose time has come are forgotten.
    assert fleet.redis.zcard(f"{LANE}:idle") < 20
