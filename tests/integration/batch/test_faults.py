"""What happens to a batch when its fleet's parts go: workers, Redis, records, and the disk with the journal."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from omnifleet import BatchRunning, Client, FleetSettings
from omnifleet.batch import Outcome, understand
from omnifleet.batch.journal import lock
from omnifleet.batch.journal.journal import Journal
from omnifleet.batch.journal.lock import RedisBatchLock
from omnifleet_shared.schema.job_state import STATE_KEY
from support import batches, services
from support.batches import BatchFleet, read_manifest, run_batch, start_batch, write_questions
from support.broker.lossy_redis import Network
from support.fork_server import ForkServer

COUNT = 30


@pytest.fixture
def fleet(tmp_path: Path, fork_server: ForkServer) -> Iterator[BatchFleet]:
    """A fleet of this test alone, without workers yet."""
    with batches.batch_fleet(tmp_path, fork_server) as fleet:
        yield fleet


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "night"


def ended(jobs: Path) -> int:
    path = Path(f"{jobs}.journal")
    if not path.exists():
        return 0
    with Journal(path) as journal:
        return journal.counts().ended


def test_a_worker_that_is_killed_costs_no_line(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    first, _ = fleet.start_worker(), fleet.start_worker()
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT, steps=6)
    with start_batch(fleet, "run", jobs, "--out", out) as batch:
        services.wait_until(lambda: ended(jobs) > 3, batches.WAIT, "the first outcomes")
        fleet.kill(first)
        _, stderr = batch.communicate(timeout=batches.WAIT)

    assert batch.returncode == 0, stderr
    assert [line["status"] for line in read_manifest(out)] == ["succeeded"] * COUNT


def test_a_redis_that_is_away_for_a_while_is_waited_for(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    proxy = services.Proxy(fleet.redis.port)
    fleet.start_worker()
    jobs = write_questions(tmp_path / "jobs.jsonl", COUNT, steps=4)
    through = {"OMNIFLEET_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}
    with proxy.running(), start_batch(fleet, "run", jobs, "--out", out, "--in-flight", "4", **through) as batch:
        services.wait_until(lambda: ended(jobs) > 3, batches.WAIT, "the first outcomes")
        proxy.cut()
        assert batch.stderr is not None
        assert any("waits: redis_url: " in line for line in batch.stderr)
        proxy.heal()
        _, stderr = batch.communicate(timeout=batches.WAIT)

    assert batch.returncode == 0, stderr
    assert [line["status"] for line in read_manifest(out)] == ["succeeded"] * COUNT
    assert set(fleet.runs().values()) == {1}


def test_a_redis_that_is_not_there_is_said_at_once(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", 3)
    nowhere = f"redis://127.0.0.1:{services.free_port()}/0"

    refused = run_batch(fleet, "run", jobs, "--out", out, OMNIFLEET_REDIS_URL=nowhere)

    assert refused.returncode == 3
    assert "BrokerUnavailable" in refused.stderr


def test_a_fleet_that_is_full_is_waited_for(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    fleet.start_worker()
    jobs = write_questions(tmp_path / "jobs.jsonl", 3, steps=2)

    done = run_batch(fleet, "run", jobs, "--out", out, OMNIFLEET_PRODUCER="night", OMNIFLEET_MAX_UNFINISHED="2")

    assert done.returncode == 0, done.stderr
    assert set(fleet.runs().values()) == {1}


def test_what_redis_has_lost_is_sent_again(fleet: BatchFleet, tmp_path: Path, out: Path) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", 6)
    point = {"KILLED_AT": "omnifleet.batch.sender:JobSender.send:after", "KILLED_CALL": "3"}
    run_batch(fleet, "run", jobs, "--out", out, **point)
    fleet.redis.client().flushall()
    fleet.start_worker()

    done = run_batch(fleet, "run", jobs, "--out", out)

    assert done.returncode == 0, done.stderr
    assert set(fleet.runs().values()) == {1}
    assert len(fleet.runs()) == 6


def test_a_record_that_has_expired_is_a_failure_and_is_not_run_twice(
    fleet: BatchFleet, tmp_path: Path, out: Path
) -> None:
    jobs = write_questions(tmp_path / "jobs.jsonl", 6)
    point = {"KILLED_AT": "omnifleet.batch.journal.journal:Journal.ended:before", "KILLED_CALL": "1"}
    fleet.start_worker()
    run_batch(fleet, "run", jobs, "--out", out, **point)
    services.wait_until(lambda: len(fleet.runs()) == 6, batches.WAIT, "all jobs")
    lost = f"{first_job_id(jobs)}"
    services.wait_until(lambda: b"SUCCESS" in state(fleet, lost), batches.WAIT, "the first job")
    fleet.redis.client().delete(STATE_KEY.format(job_id=lost))
    with closing(sqlite3.connect(f"{jobs}.journal")) as database, database:
        database.execute("UPDATE lines SET sent_at = sent_at - 30 * 86400")

    done = run_batch(fleet, "run", jobs, "--out", out)
    again = run_batch(fleet, "retry-failed", jobs)

    assert done.returncode == 1
    assert "line 1: UnknownJob" in done.stderr
    assert again.returncode == 0, again.stderr
    assert set(fleet.runs().values()) == {1}
    assert len(fleet.runs()) == 7


def first_job_id(jobs: Path) -> str:
    with Journal(Path(f"{jobs}.journal")) as journal:
        return next(journal.entries("sent")).job_id


def state(fleet: BatchFleet, job_id: str) -> bytes:
    stored: Any = fleet.redis.client().get(STATE_KEY.format(job_id=job_id))
    return stored or b""


class TestJournalInStorage:
    @pytest.fixture
    def fleet(
        self, tmp_path: Path, fork_server: ForkServer, bucket: str, s3_server: services.S3Server
    ) -> Iterator[BatchFleet]:
        settings = {
            "OMNIFLEET_STORAGE": f"s3://{bucket}/omni",
            "OMNIFLEET_S3_ENDPOINT": s3_server.endpoint,
            **s3_server.environment,
        }
        with batches.batch_fleet(tmp_path, fork_server, **settings) as fleet:
            fleet.start_worker()
            yield fleet

    POINTS = (
        ("omnifleet.batch.sender:JobSender.send:after", 9),
        ("omnifleet.batch.journal.journal:Journal.ended:after", 11),
        ("omnifleet.batch.journal.storage_journal:StorageJournal.checkpoint:after", 1),
        ("omnifleet.batch.journal.storage_journal:StorageJournal._put:after", 2),
    )

    @pytest.mark.parametrize(("point", "call"), POINTS, ids=lambda value: str(value).rpartition(".batch.")[2])
    def test_a_pod_that_is_gone_with_its_disk_is_gone_on_with(
        self, fleet: BatchFleet, tmp_path: Path, bucket: str, point: str, call: int
    ) -> None:
        jobs = write_questions(tmp_path / "jobs.jsonl", COUNT)
        home = f"s3://{bucket}/omni/night"
        command = ("run", jobs, "--out", home, "--journal", f"{home}/journal", "--in-flight", "8")

        killed = run_batch(fleet, *command, KILLED_AT=point, KILLED_CALL=str(call))
        fleet.redis.client().delete(*fleet.redis.client().keys("omnifleet:batch:*"))  # as after a minute
        done = run_batch(fleet, *command)
        status = run_batch(fleet, "status", jobs, "--journal", f"{home}/journal", "--json")

        assert killed.returncode == batches.KILLED, killed.stderr
        assert done.returncode == 0, done.stderr
        assert json.loads(status.stdout)["succeeded"] == COUNT
        assert not Path(f"{jobs}.journal").exists()
        assert set(fleet.runs().values()) == {1}
        assert len(fleet.runs()) == COUNT

    def test_a_second_process_is_refused(self, fleet: BatchFleet, tmp_path: Path, bucket: str, s3_server: Any) -> None:
        jobs = write_questions(tmp_path / "jobs.jsonl", 3)
        home = f"s3://{bucket}/omni/night"
        settings = FleetSettings(redis_url=fleet.environment["OMNIFLEET_REDIS_URL"])
        other = RedisBatchLock(f"{home}/journal", settings)
        other.acquire()

        refused = run_batch(fleet, "run", jobs, "--out", home, "--journal", f"{home}/journal")
        other.release()
        done = run_batch(fleet, "run", jobs, "--out", home, "--journal", f"{home}/journal")

        assert refused.returncode == 2
        assert "BatchRunning" in refused.stderr
        assert done.returncode == 0, done.stderr


def test_a_guard_that_ran_out_and_was_taken_is_lost(redis_url: str) -> None:
    settings = FleetSettings(redis_url=redis_url)
    with ExitStack() as held:
        first, second = RedisBatchLock("s3://b/journal", settings), RedisBatchLock("s3://b/journal", settings)
        for lock in (first, second):
            held.callback(lock.release)
        first.acquire()
        first.check()
        first._redis.flushall()
        second.acquire()

        first._reacquire()

        with pytest.raises(BatchRunning):
            first.check()
        second.check()


def test_a_lock_whose_reply_was_lost_is_not_refused_to_who_took_it(
    redis_server: services.RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(faults=deque(["reply lost"]))
    monkeypatch.setattr(lock, "connect_redis", lambda settings: network.client(redis_server.port))
    redis_server.client().flushall()
    with ExitStack() as held:
        first, second = (RedisBatchLock("s3://b/journal", FleetSettings()) for _ in range(2))
        for one in (first, second):
            held.callback(one.release)

        first.acquire()

        first.check()
        with pytest.raises(BatchRunning):
            second.acquire()


def test_a_client_s_batch_survives_a_killed_worker_and_uses_few_connections(fleet: BatchFleet) -> None:
    first, _ = fleet.start_worker(), fleet.start_worker()
    proxy = services.Proxy(fleet.redis.port)
    settings = FleetSettings(
        redis_url=f"redis://127.0.0.1:{proxy.port}/0", storage=fleet.environment["OMNIFLEET_STORAGE"], lease=4
    )
    outcomes: list[Outcome] = []
    most = 0
    with proxy.running(), Client(settings) as omni:
        jobs = (understand(question=f"What is {number}?", max_new_tokens=2) for number in range(100))
        for outcome in omni.batch(jobs, in_flight=50):
            outcomes.append(outcome)
            most = max(most, len(proxy._open) // 2)
            if len(outcomes) == 10:
                fleet.kill(first)

    assert sorted(outcome.index for outcome in outcomes) == list(range(100))
    assert all(str(outcome.result.text).startswith(f"What is {outcome.index}?") for outcome in outcomes)
    # Two for each of eight senders, and three that hear, look, and ask for the fleet's capacity.
    assert 0 < most <= 19
