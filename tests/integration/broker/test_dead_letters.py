"""Dead letters, through the command line and a real Redis."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from omnifleet.cli import app
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.dead_letters import DeadLetter, DeadLetters
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.broker.submit import fair_lanes, queue_lists
from omnifleet_shared.errors import JobQuarantined, StorageUnavailable, UnknownJob
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import ATTEMPTS_KEY, DEAD_KEY, UNFINISHED_KEY, WAKE_KEY
from omnifleet_shared.schema.jobs import GenerateJob, read_job
from omnifleet_shared.schema.results import JobResult, JobStatus, ModelInfo, Timings
from omnifleet_shared.schema.tasks import TextToSound
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from support import services
from typer.testing import CliRunner, Result

QUEUE = "audio-omni"
JOB = "job-1"
REASON = "3 workers in a row were lost while they ran it, the last one gpu-1:77"


@pytest.fixture
def settings(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> FleetSettings:
    """Of an operator whose environment names the fleet and a producer."""
    monkeypatch.setenv("OMNIFLEET_REDIS_URL", redis_url)
    monkeypatch.setenv("OMNIFLEET_PRODUCER", "web")
    return FleetSettings()


@pytest.fixture
def redis(settings: FleetSettings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url) as client:
        yield client


@pytest.fixture
def letters(redis: Redis) -> DeadLetters:
    return DeadLetters(redis, QUEUE)


@pytest.fixture
def states(redis: Redis) -> JobStates:
    return JobStates(redis, 3600)


@pytest.fixture
def attempts(redis: Redis) -> Attempts:
    return Attempts(redis, QUEUE, lifetime=3600, worker="gpu-1:77")


def letter(job_id: str = JOB, **values: Any) -> DeadLetter:
    job = GenerateJob(job_id=job_id, task=TextToSound(name="t2a", text="rain"), priority="batch", seed=7)
    return DeadLetter(job=job, reason=REASON, worker="gpu-1:77", attempts=3, **values)


def put(redis: Redis, dead: DeadLetter) -> None:
    """Write the letter as `Attempts.fail` does."""
    redis.hset(DEAD_KEY.format(queue=QUEUE), dead.job.job_id, dead.model_dump_json())


def take(redis: Redis, lost: str | None = None) -> str:
    """Take the next message; that under the lease `lost` where it is given."""
    leases = Leases(redis, QUEUE, seconds=60)
    if lost is not None:
        leases.postpone(lost, 0)
        leases.recover()
    taken = leases.take(queue_lists(QUEUE))
    assert taken is not None
    return taken.tag


@pytest.fixture
def dead_letter(settings: FleetSettings, redis: Redis, attempts: Attempts) -> DeadLetter:
    """A job that was submitted, lost three workers, was cancelled too late, and was dead-lettered."""
    dead = letter()
    with closing(CeleryTransport(settings)) as transport:
        transport.submit(dead.job)
        tag: str | None = None
        for _ in range(3):
            tag = take(redis, tag)
            attempts.begin(JOB, tag)
        transport.cancel(JOB)
    attempts.fail(JOB, JobQuarantined(REASON), take(redis, tag), letter=dead)
    return dead


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["dead", *arguments])


class TestList:
    def test_nothing_was_dead_lettered(self, settings: FleetSettings) -> None:
        assert (run("list").stdout, json.loads(run("list", "--json").stdout)) == ("", [])

    def test_a_line_each_the_oldest_first(self, redis: Redis) -> None:
        later, earlier = letter("later"), letter("earlier", dead_lettered_at="2026-01-02T03:04:05Z")
        put(redis, later)
        put(redis, earlier)

        lines = run("list").stdout.splitlines()

        assert lines[0] == f"earlier  2026-01-02T03:04:05+00:00  generate.t2a  gpu-1:77  {REASON}"
        assert lines[1].startswith("later  ")

    def test_programs_get_the_records(self, redis: Redis, letters: DeadLetters) -> None:
        put(redis, letter())

        [record] = json.loads(run("list", "--json").stdout)

        assert DeadLetter.model_validate(record) == letters.read(JOB)


class TestShow:
    def test_people_see_why_and_what(self, redis: Redis) -> None:
        put(redis, letter(traceback="Traceback (most recent call last):\nStorageUnavailable: away.\n"))

        shown = run("show", JOB).stdout

        for fact in (JOB, "generate.t2a", "gpu-1:77", REASON, "StorageUnavailable: away.", '"text": "rain"'):
            assert fact in shown

    def test_programs_get_the_record(self, redis: Redis, letters: DeadLetters) -> None:
        put(redis, letter())

        record = json.loads(run("show", JOB, "--json").stdout)

        assert DeadLetter.model_validate(record) == letters.read(JOB)

    @pytest.mark.parametrize("command", ["show", "replay", "drop"])
    def test_an_unknown_id_exits_with_2(self, settings: FleetSettings, redis: Redis, command: str) -> None:
        refused = run(command, "never-sent")

        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "omnifleet dead list" in refused.stderr
        assert not any(redis.exists(place) for place in queue_lists(QUEUE))

    def test_a_fleet_that_is_away_exits_with_3(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMNIFLEET_REDIS_URL", f"redis://127.0.0.1:{services.free_port()}/0")

        assert run("list").exit_code == 3


class TestReplay:
    def test_the_job_is_in_the_queue_as_it_was(self, redis: Redis, dead_letter: DeadLetter, states: JobStates) -> None:
        done = run("replay", JOB)

        [message] = [json.loads(one) for one in redis.lrange(queue_lists(QUEUE)[1], 0, -1)]  # type: ignore[union-attr]
        kwargs = json.loads(base64.b64decode(message["body"]))[1]
        assert (done.exit_code, done.stdout) == (0, f"{JOB} is in the queue again\n")
        assert read_job(kwargs["job"]) == dead_letter.job
        assert message["headers"]["id"] == JOB
        assert states.read(JOB).status is JobStatus.QUEUED
        assert redis.lindex(WAKE_KEY.format(queue=QUEUE), 0) == b"1"

    def test_it_is_no_dead_letter_any_more(self, dead_letter: DeadLetter, letters: DeadLetters) -> None:
        record = json.loads(run("replay", JOB, "--json").stdout)

        assert record == {"job_id": JOB, "replayed": True}
        assert letters.all() == []
        assert run("replay", JOB).exit_code == 2

    def test_lost_workers_and_the_wish_to_cancel_are_forgotten(
        self, redis: Redis, dead_letter: DeadLetter, attempts: Attempts
    ) -> None:
        run("replay", JOB)

        begun = attempts.begin(JOB, take(redis))

        assert (begun.verdict, begun.attempt, begun.unacked_starts) == ("begun", 1, 1)

    def test_its_producer_is_charged_again(self, redis: Redis, dead_letter: DeadLetter, attempts: Attempts) -> None:
        unfinished = UNFINISHED_KEY.format(producer="web")
        before = redis.zcard(unfinished)

        run("replay", JOB)

        assert (before, redis.zrange(unfinished, 0, -1)) == (0, [JOB.encode()])
        attempts.fail(JOB, StorageUnavailable("away"), take(redis))
        assert redis.zcard(unfinished) == 0

    def test_it_is_its_tenants_again(self, redis: Redis, settings: FleetSettings, attempts: Attempts) -> None:
        dead = letter()
        with closing(CeleryTransport(settings)) as transport:
            transport.of_tenant("acme").submit(dead.job)
        attempts.fail(JOB, JobQuarantined(REASON), take(redis), letter=dead)

        run("replay", JOB)

        assert redis.llen(f"{fair_lanes(QUEUE)[0]}:jobs:acme\x06\x166") == 1

    def test_where_it_cannot_be_sent_it_stays_dead_lettered(
        self, redis: Redis, dead_letter: DeadLetter, letters: DeadLetters, states: JobStates
    ) -> None:
        redis.set(queue_lists(QUEUE)[1], "in the way")

        refused = run("replay", JOB)

        assert refused.exit_code == 3
        assert letters.read(JOB) == dead_letter
        assert states.read(JOB).status is JobStatus.FAILED
        assert redis.hget(ATTEMPTS_KEY.format(job_id=JOB), "attempts") == b"3"

    def test_a_job_that_succeeded_after_all_is_left_alone(
        self, settings: FleetSettings, redis: Redis, attempts: Attempts, states: JobStates
    ) -> None:
        with closing(CeleryTransport(settings)) as transport:
            transport.submit(letter().job)
        fields: dict[str, Any] = {"namespace": "generate", "task": "t2a", "seed": 1, "attempts": 1}
        model = ModelInfo(name="m", revision="r", licence="l")
        made = JobResult(job_id=JOB, text="x", model=model, timings=Timings(), **fields)
        attempts.succeed(made, take(redis))
        put(redis, letter())

        refused = run("replay", JOB)

        assert refused.exit_code == 2
        assert "Drop it instead" in refused.stderr
        assert states.read(JOB).status is JobStatus.SUCCEEDED

    def test_sent_twice_after_an_answer_was_lost_it_is_sent_once(
        self, settings: FleetSettings, redis: Redis, dead_letter: DeadLetter
    ) -> None:
        with closing(CeleryTransport(settings)) as transport:
            transport.replay(dead_letter)
            transport.replay(dead_letter)

        assert redis.llen(queue_lists(QUEUE)[1]) == 1


class TestDrop:
    def test_it_is_forgotten_and_stays_failed(
        self, dead_letter: DeadLetter, letters: DeadLetters, states: JobStates
    ) -> None:
        done = run("drop", JOB)

        assert (done.exit_code, done.stdout) == (0, f"{JOB} is dropped\n")
        assert letters.all() == []
        assert type(states.read(JOB).error) is JobQuarantined
        with pytest.raises(UnknownJob):
            letters.read(JOB)


def test_the_last_error_that_a_worker_lived_to_tell_is_known_to_the_next(
    settings: FleetSettings, redis: Redis, attempts: Attempts
) -> None:
    with closing(CeleryTransport(settings)) as transport:
        transport.submit(letter().job)
    tag = take(redis)
    first = attempts.begin(JOB, tag)
    try:
        raise StorageUnavailable("the storage is away")
    except StorageUnavailable as error:
        attempts.retry(JOB, error, tag)

    second = attempts.begin(JOB, take(redis, tag))

    assert first.traceback == ""
    assert second.traceback.startswith("Traceback (most recent call last):")
    assert "StorageUnavailable: the storage is away." in second.traceback
