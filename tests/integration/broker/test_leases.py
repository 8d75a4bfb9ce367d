"""Leases against a real Redis: taken in one step, renewed, lost, recovered; outcomes count only under lease."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.leases import FAIR_TURN, Leases
from omnifleet_shared.errors import BrokerUnavailable, InvalidSetting, JobCancelled, MediaEmpty, StorageUnavailable
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import LEASED_KEY, LEASES_KEY, WORKERS_SEEN_KEY
from omnifleet_shared.schema.results import JobResult, JobStatus, ModelInfo, Timings
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from support import services

QUEUE = "audio-omni"
BATCH = f"{QUEUE}\x06\x166"
LISTS = [QUEUE, BATCH]
JOB = "job-1"
MESSAGE = json.dumps({"headers": {"id": JOB}}).encode()


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


@pytest.fixture
def states(redis: Redis) -> JobStates:
    return JobStates(redis, lifetime=100)


@pytest.fixture
def tag(redis: Redis, leases: Leases) -> str:
    """Of a message that was taken."""
    redis.lpush(QUEUE, MESSAGE)
    return take(leases)


def take(leases: Leases) -> str:
    taken = leases.take(LISTS)
    assert taken is not None
    return taken.tag


def take_again(leases: Leases, tag: str) -> str:
    """End the lease, and take the message as another worker does."""
    leases.postpone(tag, 0)
    leases.recover()
    return take(leases)


def result() -> JobResult:
    model = ModelInfo(name="m", revision="r", licence="l")
    fields = {"namespace": "understand", "task": "caption", "model": model, "seed": 1, "attempts": 1}
    return JobResult(job_id=JOB, text="a dog", timings=Timings(), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("workers", "waiting", "taken"), [(0, 6, 6), (1, 6, 6), (2, 6, 3), (4, 6, 2), (9, 6, 1), (2, 40, FAIR_TURN - 1)]
)
def test_a_worker_takes_its_share_of_a_few_at_once(
    redis: Redis, leases: Leases, workers: int, waiting: int, taken: int
) -> None:
    redis.lpush(QUEUE, *range(waiting))
    for number in range(workers):
        redis.zadd(WORKERS_SEEN_KEY.format(queue=QUEUE), {f"worker-{number}": 1})

    messages = leases.take_several(dict.fromkeys(LISTS, 8))

    assert len(messages) == taken


def test_a_message_is_never_in_neither_place(redis: Redis, leases: Leases) -> None:
    redis.lpush(QUEUE, b"message")

    taken = leases.take(LISTS)

    assert taken is not None
    assert taken.message == b"message"
    assert redis.llen(QUEUE) == 0
    assert redis.hget(LEASED_KEY.format(queue=QUEUE), taken.tag) == QUEUE.encode() + b"\nmessage"
    assert redis.zscore(LEASES_KEY.format(queue=QUEUE), taken.tag) > redis.time()[0]


def test_an_empty_queue_gives_nothing(leases: Leases) -> None:
    assert leases.take(LISTS) is None


def test_interactive_messages_come_first(redis: Redis, leases: Leases) -> None:
    redis.lpush(BATCH, b"batch")
    redis.lpush(QUEUE, b"interactive")

    assert [leases.take(LISTS).message for _ in range(2)] == [b"interactive", b"batch"]  # type: ignore[union-attr]


def test_a_lease_that_is_over_puts_its_message_back_where_it_came_from(redis: Redis) -> None:
    short = Leases(redis, QUEUE, seconds=0)
    redis.lpush(BATCH, b"line\nfeeds\n")
    short.take(LISTS)

    assert short.recover() == 1

    assert redis.lrange(BATCH, 0, -1) == [b"line\nfeeds\n"]
    assert short.count() == 0


def test_what_is_recovered_is_next(redis: Redis) -> None:
    short = Leases(redis, QUEUE, seconds=0)
    redis.lpush(QUEUE, b"first")
    redis.lpush(QUEUE, b"second")
    short.take(LISTS)

    short.recover()

    assert short.take(LISTS).message == b"first"  # type: ignore[union-attr]


def test_a_lease_that_is_renewed_is_not_recovered(redis: Redis, leases: Leases, tag: str) -> None:
    leases.postpone(tag, 0)

    assert leases.renew([tag]) == set()

    assert leases.recover() == 0


def test_a_renewal_tells_which_leases_were_lost_and_makes_none_anew(leases: Leases, tag: str) -> None:
    leases.postpone(tag, 0)
    leases.recover()

    assert leases.renew([tag]) == {tag}
    assert leases.count() == 0


def test_who_lost_a_lease_cannot_end_the_next_one_s(leases: Leases, tag: str) -> None:
    leases.postpone(tag, 0)
    leases.recover()
    again = leases.take(LISTS)

    leases.ack(tag)

    assert again is not None
    assert leases.renew([again.tag]) == set()


def test_a_job_under_lease_begins_and_ends_once(
    redis: Redis, leases: Leases, attempts: Attempts, states: JobStates, tag: str
) -> None:
    begun = attempts.begin(JOB, tag)

    assert (begun.verdict, begun.attempt, begun.unacked_starts) == ("begun", 1, 1)
    assert states.read(JOB).status is JobStatus.RUNNING
    assert attempts.succeed(result(), tag) == "written"
    redis.lpush(QUEUE, MESSAGE)
    assert attempts.fail(JOB, MediaEmpty("late"), take(leases)) == "ended"
    assert states.read(JOB).result == result()


def test_a_late_twin_can_neither_answer_nor_overwrite(
    leases: Leases, attempts: Attempts, states: JobStates, tag: str
) -> None:
    attempts.begin(JOB, tag)
    leases.postpone(tag, 0)
    leases.recover()
    other = leases.take(LISTS)
    assert other is not None
    assert attempts.begin(JOB, other.tag).attempt == 2

    assert attempts.succeed(result(), tag) == "lost"
    assert states.read(JOB).status is JobStatus.RUNNING
    assert attempts.fail(JOB, MediaEmpty("the second one's"), other.tag) == "written"
    assert attempts.succeed(result(), tag) == "lost"
    assert isinstance(states.read(JOB).error, MediaEmpty)


def test_nothing_begins_without_a_lease(attempts: Attempts) -> None:
    assert attempts.begin(JOB, "no-such-tag").verdict == "lost"


def test_a_job_that_ended_does_not_begin_again(redis: Redis, leases: Leases, attempts: Attempts, tag: str) -> None:
    attempts.begin(JOB, tag)
    attempts.succeed(result(), tag)
    redis.lpush(QUEUE, MESSAGE)

    assert attempts.begin(JOB, take(leases)).verdict == "ended"


def test_an_outcome_ends_the_lease_of_its_own_message_alone(leases: Leases, attempts: Attempts, tag: str) -> None:
    attempts.fail("another-job", MediaEmpty("empty"), tag)
    assert leases.count() == 1

    attempts.fail(JOB, MediaEmpty("empty"), tag)
    assert leases.count() == 0


def test_a_cancelled_job_does_not_begin(attempts: Attempts, states: JobStates, tag: str) -> None:
    states.request_cancel(JOB)

    assert attempts.begin(JOB, tag).verdict == "cancelled"
    assert attempts.fail(JOB, JobCancelled("gone"), tag) == "written"
    assert states.read(JOB).status is JobStatus.CANCELLED


def test_starts_that_came_to_no_end_are_counted_and_a_retry_is_an_end(
    leases: Leases, attempts: Attempts, tag: str
) -> None:
    for starts in (1, 2, 3):
        assert attempts.begin(JOB, tag).unacked_starts == starts
        tag = take_again(leases, tag)
    attempts.begin(JOB, tag)

    attempts.retry(JOB, StorageUnavailable("away"), tag)
    begun = attempts.begin(JOB, take_again(leases, tag))

    assert (begun.attempt, begun.unacked_starts, begun.previous_worker) == (5, 1, "worker-1")


def test_a_retry_is_no_outcome(attempts: Attempts, states: JobStates, tag: str) -> None:
    attempts.begin(JOB, tag)

    attempts.retry(JOB, StorageUnavailable("away"), tag)

    assert states.read(JOB).status is JobStatus.RETRYING
    assert isinstance(states.read(JOB).error, StorageUnavailable)


def test_records_are_celery_s_own(redis: Redis, attempts: Attempts, tag: str) -> None:
    attempts.begin(JOB, tag)
    attempts.succeed(result(), tag)

    record = json.loads(redis.get(f"celery-task-meta-{JOB}"))

    assert {"status", "result", "traceback", "task_id", "date_done", "children"} <= record.keys()
    assert 0 < redis.ttl(f"celery-task-meta-{JOB}") <= 100


def test_a_full_redis_refuses_to_take_and_loses_nothing(tmp_path: object) -> None:
    server = services.RedisServer(services.free_port(), tmp_path)  # type: ignore[arg-type]
    with server.running(), server.client() as redis:
        redis.lpush(QUEUE, b"message")
        redis.config_set("maxmemory", "1")
        leases = Leases(redis, QUEUE, seconds=60)
        try:
            taken = leases.take(LISTS)
        except BrokerUnavailable:
            taken = None

        kept = redis.llen(QUEUE) + redis.hlen(LEASED_KEY.format(queue=QUEUE))
        assert kept == 1
        assert taken is None or redis.llen(QUEUE) == 0


def test_no_redis_and_a_wrong_password_are_told_apart(tmp_path: object) -> None:
    server = services.RedisServer(services.free_port(), tmp_path)  # type: ignore[arg-type]
    settings = FleetSettings(redis_url=server.url, redis_timeout=0.5)
    with pytest.raises(BrokerUnavailable):
        Leases.connect(settings).take(LISTS)
    with server.running(), server.client() as redis:
        redis.config_set("requirepass", "secret")
        with pytest.raises(InvalidSetting, match="password"):
            Leases.connect(FleetSettings(redis_url=server.url.replace("redis://", "redis://:wrong@"))).take(LISTS)
