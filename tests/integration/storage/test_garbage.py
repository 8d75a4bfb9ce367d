"""`omnifleet storage gc`: what a job, a dead letter or a kept result needs stays, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from omnifleet import AsyncClient, Client
from omnifleet.batch.journal.journal import Batch, Journal
from omnifleet.cli import app
from omnifleet.ops import storage_gc
from omnifleet.ops.needed_objects import NeededObjects
from omnifleet.ops.storage_gc import GarbageCollector
from omnifleet.request import uploads
from omnifleet.request.calls import understand
from omnifleet.request.maker import JobMaker
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.broker.dead_letters import DeadLetter, DeadLetters
from omnifleet_shared.broker.deletions import Deletions
from omnifleet_shared.broker.leases import LeasedMessage, Leases
from omnifleet_shared.broker.part_commits import PartCommits
from omnifleet_shared.broker.submit import all_lists
from omnifleet_shared.errors import JobFailed, JobQuarantined, StorageUnavailable
from omnifleet_shared.keys import (
    ANSWERS_QUEUE,
    BINDINGS,
    DEAD_KEY,
    DELETION_KEY,
    LEASES_KEY,
    RESULT_KEY,
    STREAMED_KEY,
    SUSPECTS_KEY,
)
from omnifleet_shared.schema.job_state import STATE_KEY, JobState
from omnifleet_shared.schema.jobs import Job, UnderstandJob, read_job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import Artifact, JobResult, JobStatus, ModelInfo, Timings
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import FolderStorage, StoredObject, open_storage
from redis import Redis
from support import services
from typer.testing import CliRunner, Result

QUEUE = "audio-omni"
ANSWERS = ANSWERS_QUEUE.format(queue=QUEUE)
HOUR = 3600.0
DAY = 24 * HOUR


class Fleet:
    """A producer, and a worker whose every step is the test's own."""

    def __init__(self, settings: FleetSettings, storage: FolderStorage | None = None) -> None:
        self.redis = Redis.from_url(settings.redis_url)
        self.storage: Any = storage or open_storage(settings)
        self.transport = CeleryTransport(settings)
        self.maker = JobMaker(settings, self.storage, self.transport.pending_deletion)
        self.leases = Leases(self.redis, QUEUE, seconds=60)
        self.attempts = Attempts(self.redis, QUEUE, lifetime=3600, worker="gpu-1:77")
        self.letters = DeadLetters(self.redis, QUEUE)

    def close(self) -> None:
        self.transport.close()
        self.redis.close()

    def submit(self, media: Any, **options: Any) -> Job:
        job, key, _ = self.maker.make(understand("transcribe", media, **options))
        self.transport.submit(job, key)
        return job

    def take(self) -> tuple[Job, str]:
        taken = self.leases.take(all_lists(QUEUE))
        assert taken is not None
        job = job_of(taken)
        assert self.attempts.begin(job.job_id, taken.tag).verdict == "begun"
        return job, taken.tag

    def succeed(self, job: Job, tag: str) -> str:
        """Store a result, record it, and acknowledge; gives its URI."""
        uri = self.put_result(job.job_id)
        assert self.attempts.succeed(result_of(job.job_id, uri), tag) == "written"
        self.leases.ack(tag)
        return uri

    def fail(self, job: Job, tag: str) -> None:
        assert self.attempts.fail(job.job_id, JobFailed("for good"), tag) == "written"
        self.leases.ack(tag)

    def dead_letter(self, job: Job, tag: str) -> DeadLetter:
        letter = DeadLetter(job=job, reason="it kills", worker="gpu-1:77", attempts=3)
        error = JobQuarantined("it kills")
        assert self.attempts.fail(job.job_id, error, tag, letter=letter) == "written"
        self.leases.ack(tag)
        return letter

    def lose(self, tag: str) -> None:
        """Let a lease end, so that the message goes back to its queue."""
        self.redis.zadd(LEASES_KEY.format(queue=QUEUE), {tag: 1.0})
        assert self.leases.recover() == 1

    def put_result(self, job_id: str, attempt: int = 1) -> str:
        key = RESULT_KEY.format(job_id=job_id, attempt=attempt, format="wav")
        return str(self.storage.put(key, io.BytesIO(job_id.encode()), content_type="audio/wav").uri)

    def put_part(self, job_id: str, number: int) -> str:
        key = STREAMED_KEY.format(job_id=job_id, attempt=1, number=number)
        return str(self.storage.put(key, io.BytesIO(b"part"), content_type="audio/wav").uri)

    def input(self, media: bytes) -> str:
        return str(self.storage.describe_input(io.BytesIO(media)).uri)

    def upload(self, media: bytes) -> str:
        source = io.BytesIO(media)
        return str(self.storage.put_input(self.storage.describe_input(source), source).uri)

    def forget(self, job_id: str) -> None:
        """Let the job's record expire."""
        self.redis.delete(STATE_KEY.format(job_id=job_id))

    def is_stored(self, uri: str) -> bool:
        return self.storage.stat(uri) is not None

    def grow_old(self, hours: float = 1000) -> None:
        """Let time pass for what is stored."""
        for path in [path for path in self.storage.folder.rglob("*") if path.is_file()]:
            before = path.stat().st_mtime - hours * HOUR
            os.utime(path, (before, before))


def job_of(taken: LeasedMessage) -> Job:
    return read_job(json.loads(base64.b64decode(json.loads(taken.message)["body"]))[1]["job"])


def result_of(job_id: str, uri: str) -> JobResult:
    artifact = Artifact(
        uri=uri, url=uri, sha256="0" * 64, bytes=1, seconds=1, format="wav", sample_rate=44_100, channels=2
    )
    model = ModelInfo(name="audio-omni", revision="r", licence="l")
    return JobResult(
        job_id=job_id,
        namespace="generate",
        task="t2a",
        artifact=artifact,
        model=model,
        seed=1,
        attempts=1,
        timings=Timings(),
    )


@pytest.fixture
def settings(redis_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> FleetSettings:
    monkeypatch.setenv("OMNIFLEET_REDIS_URL", redis_url)
    monkeypatch.setenv("OMNIFLEET_STORAGE", f"file://{folder}")
    return FleetSettings()


@pytest.fixture
def fleet(settings: FleetSettings) -> Iterator[Fleet]:
    with closing(Fleet(settings)) as made:
        yield made


def gc(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["storage", "gc", *arguments])


def collected(*arguments: str) -> dict[str, Any]:
    """The last line of what it prints as JSON."""
    done = gc("--json", *arguments)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_parts_of_a_streamed_job_stay_as_long_as_they_are_read(fleet: Fleet) -> None:
    fleet.submit(b"heard")
    job, tag = fleet.take()
    uris = [fleet.put_part(job.job_id, number) for number in (1, 2)]
    commits = PartCommits(fleet.redis, QUEUE, 3600)
    commits.commit(job.job_id, tag, StreamedPart(number=1, audio=result_of(job.job_id, uris[0]).artifact))
    fleet.succeed(job, tag)
    fleet.grow_old()

    assert collected()["deleted"] == 2  # the other one is what was heard
    assert [fleet.is_stored(uri) for uri in uris] == [True, False]

    fleet.forget(job.job_id)
    assert collected()["deleted"] == 2
    assert not fleet.is_stored(uris[0])


def test_a_voice_is_never_deleted(fleet: Fleet, settings: FleetSettings) -> None:
    with Client(settings) as client:
        client.voices.add("anna", b"a recording", consent="a contract", text="hello")
        fleet.submit(b"needed")
        fleet.storage.put("voices/files/anna/made.of-it", io.BytesIO(b"encoding"), content_type="x/y")
        fleet.grow_old()

        assert collected()["deleted"] == 0
        assert client.voices.get("anna").text == "hello"
        assert len([path for path in fleet.storage.folder.rglob("voices/*/*") if path.exists()]) == 2


class TestInputs:
    def test_what_a_job_needs_stays_wherever_its_message_is(self, fleet: Fleet) -> None:
        for media in (b"dead", b"leased", b"postponed", b"waiting"):
            fleet.submit(media, priority="batch" if media == b"waiting" else None)
        fleet.dead_letter(*fleet.take())
        fleet.take()
        fleet.leases.postpone(fleet.take()[1], 60)
        garbage = fleet.upload(b"garbage")
        fleet.grow_old()

        found = collected()

        assert found == {"deleted": 1, "bytes": 7, "kept": {"job": 4}, "dry_run": False}
        assert not fleet.is_stored(garbage)
        assert all(fleet.is_stored(fleet.input(media)) for media in (b"dead", b"leased", b"postponed", b"waiting"))

    @pytest.mark.parametrize("is_leased", [False, True])
    def test_what_a_suspect_needs_stays(self, fleet: Fleet, is_leased: bool) -> None:
        fleet.submit(b"suspected")
        fleet.lose(fleet.take()[1])
        assert fleet.redis.llen(SUSPECTS_KEY.format(queue=QUEUE)) == 1
        if is_leased:
            fleet.take()
        fleet.grow_old()

        assert collected()["kept"] == {"job": 1}
        assert fleet.is_stored(fleet.input(b"suspected"))

    def test_a_job_in_another_queue_of_the_same_redis_counts(self, fleet: Fleet, settings: FleetSettings) -> None:
        fleet.submit(b"ours")
        with closing(Fleet(settings.model_copy(update={"queue": "audio-omni-2"}))) as other:
            other.submit(b"theirs")
        fleet.grow_old()

        assert collected()["deleted"] == 0

    def test_what_ended_jobs_needed_goes(self, fleet: Fleet) -> None:
        for media in (b"done", b"failed"):
            fleet.submit(media)
        fleet.succeed(*fleet.take())
        fleet.fail(*fleet.take())
        fleet.grow_old()

        collected("--only", "inputs")

        assert not fleet.is_stored(fleet.input(b"done"))
        assert not fleet.is_stored(fleet.input(b"failed"))

    def test_a_dropped_dead_letter_needs_nothing(self, fleet: Fleet) -> None:
        job = fleet.submit(b"dead")
        fleet.dead_letter(*fleet.take())
        fleet.letters.drop(job.job_id)
        fleet.grow_old()

        assert collected()["deleted"] == 1

    def test_what_is_young_stays(self, fleet: Fleet) -> None:
        fleet.submit(b"queued")
        uri = fleet.upload(b"just uploaded")
        fleet.grow_old(hours=3)

        assert collected()["kept"] == {"job": 1, "young": 1}
        assert collected("--older-than", "2")["deleted"] == 1
        assert not fleet.is_stored(uri)

    def test_a_reused_upload_is_young_again(self, fleet: Fleet) -> None:
        fleet.submit(b"the same")
        fleet.fail(*fleet.take())
        fleet.grow_old()
        fleet.submit(b"the same")
        fleet.fail(*fleet.take())

        assert collected()["kept"] == {"young": 1}

    def test_a_result_that_is_the_input_of_another_job_stays(self, fleet: Fleet) -> None:
        first = fleet.submit(b"first")
        uri = fleet.succeed(*fleet.take())
        fleet.grow_old()
        fleet.submit(uri)
        fleet.forget(first.job_id)
        assert fleet.storage.stat(uri).age < 60  # young, as every upload that is reused
        fleet.grow_old()

        collected()

        assert fleet.is_stored(uri)
        assert not fleet.is_stored(fleet.input(b"first"))

    def test_a_stored_object_of_the_users_own_is_left_alone(self, fleet: Fleet) -> None:
        uri = fleet.storage.put("archive/call.wav", io.BytesIO(b"call"), content_type="audio/wav").uri
        fleet.grow_old()

        fleet.submit(uri)
        collected()

        assert fleet.storage.stat(uri).age > DAY

    def test_a_job_whose_time_for_its_inputs_is_long_over_needs_none(
        self, settings: FleetSettings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(Fleet(settings.model_copy(update={"input_lifetime": 3600}))) as fleet:
            fleet.submit(b"no deadline")
            fleet.submit(b"deadline", deadline=10 * DAY)
            fleet.grow_old()
            later = datetime.now(UTC) + timedelta(hours=30)
            monkeypatch.setattr(NeededObjects, "_now", lambda _: later)

            collected()

            assert not fleet.is_stored(fleet.input(b"no deadline"))
            assert fleet.is_stored(fleet.input(b"deadline"))

    def test_a_job_of_an_older_producer_needs_its_inputs_for_as_long_as_it_waits(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fleet.submit(b"old")
        message = json.loads(fleet.redis.rpop(ANSWERS))  # type: ignore[arg-type]
        assert message["headers"].pop("inputs_until")
        fleet.redis.lpush(QUEUE, json.dumps(message))
        fleet.grow_old()
        monkeypatch.setattr(NeededObjects, "_now", lambda _: datetime.now(UTC) + timedelta(days=1000))

        assert collected()["kept"] == {"job": 1}


class TestResults:
    def test_a_result_stays_as_long_as_its_record(self, fleet: Fleet) -> None:
        job = fleet.submit(b"a")
        uri = fleet.succeed(*fleet.take())
        lost = fleet.put_result(job.job_id, attempt=2)
        fleet.grow_old()

        assert collected("--only", "results")["kept"] == {"result": 1}
        assert not fleet.is_stored(lost)

        fleet.forget(job.job_id)
        collected("--only", "results")
        assert not fleet.is_stored(uri)
        assert fleet.is_stored(fleet.input(b"a"))

    def test_what_a_job_made_so_far_stays_while_it_has_no_outcome(self, fleet: Fleet) -> None:
        running, waiting = fleet.submit(b"running"), fleet.submit(b"waiting")
        _, tag = fleet.take()
        made = [fleet.put_result(running.job_id), fleet.put_result(waiting.job_id)]
        part = fleet.storage.put(f"parts/{running.job_id}.w1", io.BytesIO(b"part"), content_type="audio/wav").uri
        fleet.forget(waiting.job_id)  # it waits for longer than records live
        fleet.grow_old()

        assert collected()["kept"] == {"job": 5}

        fleet.fail(running, tag)
        collected()
        assert [fleet.is_stored(uri) for uri in (*made, part)] == [False, True, False]

    def test_what_a_job_made_that_is_in_no_queue_and_did_not_end_stays(self, fleet: Fleet) -> None:
        fleet.submit(b"a")
        job, tag = fleet.take()
        uri = fleet.put_result(job.job_id)
        fleet.leases.ack(tag)
        fleet.grow_old()

        assert collected("--only", "results")["kept"] == {"undecided": 1}
        assert fleet.is_stored(uri)

    def test_a_result_that_a_journal_names_stays(self, fleet: Fleet, tmp_path: Path) -> None:
        job = fleet.submit(b"a")
        uri = fleet.succeed(*fleet.take())
        fleet.forget(job.job_id)
        with Journal(tmp_path / "night.journal") as journal:
            journal.begin(
                Batch(batch_id="b", jobs="j", fingerprint="f", template={}, ignored=(), count=1, out=str(tmp_path))
            )
            state = JobState(status=JobStatus.SUCCEEDED, result=result_of(job.job_id, uri))
            journal.ended(0, job.job_id, state)
        fleet.grow_old()

        assert collected("--journal", str(tmp_path / "night.journal"))["kept"] == {"journal": 1}
        assert fleet.is_stored(uri)


class TestDoubt:
    @pytest.fixture
    def garbage(self, fleet: Fleet) -> str:
        fleet.submit(b"queued")
        uri = fleet.upload(b"garbage")
        fleet.grow_old()
        return uri

    def test_nothing_is_deleted_without_redis(
        self, fleet: Fleet, garbage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMNIFLEET_REDIS_URL", f"redis://127.0.0.1:{services.free_port()}")

        done = gc()

        assert done.exit_code == 3
        assert "Redis does not answer" in done.stderr
        assert fleet.is_stored(garbage)

    def test_nothing_is_deleted_for_a_redis_of_another_fleet(
        self, fleet: Fleet, garbage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OMNIFLEET_REDIS_URL", f"{os.environ['OMNIFLEET_REDIS_URL'].rpartition('/')[0]}/1")

        done = gc()

        assert done.exit_code == 2
        assert "no job was ever sent to the queue 'audio-omni' in this Redis" in done.stderr
        assert fleet.is_stored(garbage)

    @pytest.mark.parametrize(
        ("place", "stored"), [(DEAD_KEY.format(queue=QUEUE), b"{not json"), (QUEUE, b"no message"), (QUEUE, b"{}")]
    )
    def test_nothing_is_deleted_where_a_message_cannot_be_read(
        self, fleet: Fleet, garbage: str, place: str, stored: bytes
    ) -> None:
        if place == QUEUE:
            fleet.redis.lpush(place, stored)
        else:
            fleet.redis.hset(place, "job-1", stored)

        done = gc()

        assert done.exit_code == 1
        assert "cannot be read" in done.stderr
        assert fleet.is_stored(garbage)

    def test_nothing_is_deleted_where_a_result_record_cannot_be_read(self, fleet: Fleet, garbage: str) -> None:
        uri = fleet.put_result("job-1")
        fleet.redis.set(STATE_KEY.format(job_id="job-1"), b"no record")
        fleet.grow_old()

        done = gc("--only", "results")

        assert done.exit_code == 1
        assert fleet.is_stored(uri)

    def test_nothing_is_deleted_once_the_copies_of_the_messages_have_expired(
        self, fleet: Fleet, garbage: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read = NeededObjects._keys

        def too_late(self: NeededObjects, content: object) -> Iterator[str]:
            for name in fleet.redis.scan_iter("omnifleet:snapshot:*"):
                fleet.redis.delete(name)
            return read(self, content)

        monkeypatch.setattr(NeededObjects, "_keys", too_late)

        done = gc()

        assert done.exit_code == 3
        assert "expired while they were read" in done.stderr
        assert fleet.is_stored(garbage)

    def test_nothing_is_deleted_in_a_dry_run_that_tells_of_everything(self, fleet: Fleet, garbage: str) -> None:
        done = gc("--dry-run")

        assert fleet.is_stored(garbage)
        *lines, last = done.stdout.splitlines()
        assert sorted(line.split()[0] for line in lines) == ["delete", "keep"]
        assert [line.split()[-1] for line in lines if line.startswith("delete")] == [garbage]
        assert all(line.endswith(" needs it") for line in lines if line.startswith("keep"))
        assert last == "1 objects (7 B) would be deleted, 1 kept, 1 that jobs need"

    def test_young_objects_are_never_asked_for(self, fleet: Fleet, garbage: str) -> None:
        done = gc("--older-than", "1.9")

        assert done.exit_code == 2
        assert "--older-than: objects younger than 2 h may belong to jobs that are just being sent" in done.stderr
        assert fleet.is_stored(garbage)

    def test_no_copies_are_left_behind(self, fleet: Fleet, garbage: str) -> None:
        gc()

        assert list(fleet.redis.scan_iter("omnifleet:snapshot:*")) == []
        assert list(fleet.redis.scan_iter(DELETION_KEY.format(uri="*"))) == []


class TestManyMessages:
    def test_more_than_one_piece_of_each_place_is_read(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("omnifleet_shared.broker.message_snapshot.PIECE", 2)
        monkeypatch.setattr(storage_gc, "BATCH", 3)
        for number in range(12):
            fleet.submit(f"{number}".encode())
        for _ in range(5):
            fleet.take()
        for number in range(12, 24):
            fleet.upload(f"{number}".encode())
        fleet.grow_old()

        assert collected() == {"deleted": 12, "bytes": 24, "kept": {"job": 12}, "dry_run": False}
        assert all(fleet.is_stored(fleet.input(f"{number}".encode())) for number in range(12))


class TestOnS3:
    def test_garbage_goes_and_what_is_needed_stays(
        self,
        redis_url: str,
        bucket: str,
        s3_server: services.S3Server,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        place = {"STORAGE": f"s3://{bucket}/omni", "S3_ENDPOINT": s3_server.endpoint, "REDIS_URL": redis_url}
        for name, value in place.items():
            monkeypatch.setenv(f"OMNIFLEET_{name}", value)
        monkeypatch.setattr(storage_gc, "YOUNGEST", 0.0)
        with closing(Fleet(FleetSettings())) as fleet:
            fleet.submit(b"needed")
            garbage = [fleet.upload(b"garbage"), fleet.put_result("job-1")]
            assert [json.loads(line)["kept"] for line in gc("--json", "--dry-run").stdout.splitlines()[:3]] == [
                *(["job", "young"] if fleet.input(b"needed") < garbage[0] else ["young", "job"]),
                "young",
            ]
            services.wait_until(lambda: fleet.storage.stat(garbage[1]).age >= 2, what="all of it is old")

            found = collected("--older-than", str(1 / HOUR))

            assert found == {"deleted": 2, "bytes": 12, "kept": {"job": 1}, "dry_run": False}
            assert not any(map(fleet.is_stored, garbage))
            assert fleet.is_stored(fleet.input(b"needed"))


class InterruptedStorage(FolderStorage):
    """A folder that lets something happen before and after whatever is done to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.interrupt: Callable[[], None] = lambda: None

    def stat(self, uri: str) -> StoredObject | None:
        return self._around(lambda: FolderStorage.stat(self, uri))

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        return self._around(lambda: FolderStorage.put(self, key, source, content_type=content_type))

    def touch(self, uri: str) -> bool:
        return self._around(lambda: FolderStorage.touch(self, uri))

    def delete(self, uri: str) -> None:
        self._around(lambda: FolderStorage.delete(self, uri))

    def clock(self) -> float | None:
        return self._around(lambda: FolderStorage.clock(self))

    def _around(self, do: Callable[[], Any]) -> Any:
        self.interrupt()
        done = do()
        self.interrupt()
        return done


def collector_of(fleet: Fleet) -> GarbageCollector:
    return GarbageCollector(
        fleet.storage, lambda: NeededObjects(fleet.redis, fleet.storage, QUEUE, DAY), Deletions(fleet.redis), DAY
    )


class TestRaces:
    """A job is sent while the garbage is collected. Each test is one place where the other comes in between."""

    @pytest.fixture
    def fleet(self, settings: FleetSettings, folder: Path) -> Iterator[Fleet]:
        with closing(Fleet(settings, InterruptedStorage(folder))) as made:
            made.submit(b"some job")
            made.upload(b"the same")
            made.grow_old()
            yield made

    def test_an_upload_that_is_used_again_after_it_was_listed_stays(self, fleet: Fleet) -> None:
        """On main today the object is not even touched."""
        listed: list[None] = []

        def submit() -> None:
            fleet.storage.interrupt = lambda: None
            listed.append(fleet.submit(b"the same"))  # type: ignore[arg-type]

        fleet.storage.interrupt = submit
        found = list(collector_of(fleet).collect(dry_run=False))

        assert listed
        assert {one.kept for one in found} == {"job", "used"}
        assert fleet.is_stored(fleet.input(b"the same"))

    def test_a_job_that_needs_what_is_being_deleted_waits_and_uploads_it_again(self, fleet: Fleet) -> None:
        uri, sent = fleet.input(b"the same"), threading.Event()
        deletions = Deletions(fleet.redis)
        deletions.announce([uri])

        def submit() -> None:
            fleet.submit(b"the same")
            sent.set()

        sender = threading.Thread(target=submit)
        sender.start()
        services.wait_until(lambda: fleet.storage.stat(uri).age < 60, what="the upload is touched")
        assert not sent.wait(0.5)
        fleet.storage.delete(uri)  # as it was decided before the touch
        deletions.withdraw([uri])
        sender.join()

        assert sent.is_set()
        assert fleet.is_stored(uri)

    @pytest.mark.parametrize("how", ["client", "asyncio", "batch"])
    def test_every_way_to_send_a_job_looks_for_deletions(
        self, fleet: Fleet, settings: FleetSettings, monkeypatch: pytest.MonkeyPatch, how: str
    ) -> None:
        monkeypatch.setattr(uploads, "DELETION_PATIENCE", 0.0)
        Deletions(fleet.redis).announce([fleet.input(b"the same")])

        async def submit() -> None:
            async with AsyncClient(settings) as client:
                await client.understand("transcribe", b"the same")

        with Client(settings) as client, pytest.raises(StorageUnavailable, match="is being deleted"):
            if how == "client":
                client.understand("transcribe", b"the same")
            elif how == "asyncio":
                asyncio.run(submit())
            else:
                client.sender.send(understand("transcribe", b"the same"), "batch-1")

    def test_a_job_is_not_sent_while_its_input_is_being_deleted_for_long(
        self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "DELETION_PATIENCE", 0.0)
        Deletions(fleet.redis).announce([fleet.input(b"the same")])

        with pytest.raises(StorageUnavailable, match="is being deleted"):
            fleet.submit(b"the same")

        assert fleet.redis.llen(ANSWERS) == 1


class InterruptedDeletions(Deletions):
    """Announcements that let something happen before and after them."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.redis)
        self._fleet = fleet

    def announce(self, uris: Sequence[str]) -> None:
        self._fleet.storage.interrupt()
        super().announce(uris)
        self._fleet.storage.interrupt()


FILES = (b"one", b"two")
STEPS = (
    "submit 0",
    "submit 1",
    "take",
    "succeed",
    "fail",
    "dead_letter",
    "replay",
    "drop",
    "lose",
    "expire",
    "end_all",
)
HOURS = (0.5, 1.5, 30, 1000)
MOST_JOBS = 3
"""Unfinished jobs at a time: with more of them hardly anything is ever garbage."""
steps = st.sampled_from(STEPS)


ANY_ORDER = hypothesis.settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    # To make an example shorter takes minutes.
    phases=(hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate),
)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens to jobs in whatever order, also while garbage is collected and while an upload is made."""

    fleet: Fleet

    def __init__(self) -> None:
        super().__init__()
        for key in self.fleet.redis.scan_iter():
            if not key.startswith(BINDINGS.encode()):  # without a queue that was ever used, nothing is collected
                self.fleet.redis.delete(key)
        shutil.rmtree(self.fleet.storage.folder, ignore_errors=True)
        self.fleet.storage.interrupt = lambda: None
        self.jobs: dict[str, Job] = {}
        self.leased: list[tuple[Job, str]] = []
        self.dead: list[DeadLetter] = []
        self.results: dict[str, str] = {}

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        self._do(data.draw(st.sampled_from([step for step in STEPS if self._can(step)])))

    @rule(hours=st.sampled_from(HOURS), meanwhile=st.dictionaries(st.integers(0, 12), st.lists(steps, max_size=3)))
    def collect_later(self, hours: float, meanwhile: dict[int, list[str]]) -> None:
        self.fleet.grow_old(hours)
        self._interrupted(meanwhile, self._collect)

    @rule(hours=st.sampled_from(HOURS), file=st.sampled_from("01"), at=st.integers(0, 8))
    def collect_while_a_job_is_sent_later(self, hours: float, file: str, at: int) -> None:
        self.fleet.grow_old(hours)
        self._interrupted({at: [self._collect]}, lambda: self._submit(file))

    @invariant()
    def what_is_needed_is_there(self) -> None:
        for job in self.jobs.values():
            assert isinstance(job, UnderstandJob)
            assert self.fleet.is_stored(job.task.audio[0].uri), f"{job.job_id} lost its input"
        for job, _ in self.leased:
            assert self.fleet.is_stored(self._part(job)), f"{job.job_id} lost its part"
        for job_id, uri in self.results.items():
            assert self.fleet.is_stored(uri), f"{job_id} lost its result"

    def _can(self, step: str) -> bool:
        waiting = len(self.jobs) - len(self.dead) - len(self.leased)
        if step.startswith("submit"):
            return len(self.jobs) < MOST_JOBS
        needs = {"take": waiting, "replay": self.dead, "drop": self.dead, "expire": self.results, "end_all": self.jobs}
        return bool(needs.get(step, self.leased))

    def _do(self, step: str) -> None:
        name, _, which = step.partition(" ")
        if self._can(step):
            getattr(self, f"_{name}")(*which)

    def _interrupted(self, meanwhile: Mapping[int, Sequence[str | Callable[[], None]]], do: Callable[[], None]) -> None:
        count = itertools.count()

        def interrupt() -> None:
            self.fleet.storage.interrupt = lambda: None
            for step in meanwhile.get(next(count), ()):
                self._do(step) if isinstance(step, str) else step()
            self.fleet.storage.interrupt = interrupt

        self.fleet.storage.interrupt = interrupt
        do()
        self.fleet.storage.interrupt = lambda: None

    def _collect(self) -> None:
        deletions, fleet = InterruptedDeletions(self.fleet), self.fleet
        read = partial(NeededObjects, fleet.redis, fleet.storage, QUEUE, DAY)
        list(GarbageCollector(fleet.storage, read, deletions, DAY).collect(dry_run=False))

    def _submit(self, file: str) -> None:
        with suppress(StorageUnavailable):  # instead of waiting until the collector below it goes on
            job = self.fleet.submit(FILES[int(file)])
            self.jobs[job.job_id] = job

    def _end_all(self) -> None:
        for step in ("drop", "fail", "take"):
            while self._can(step):
                self._do(step)
        while self._can("fail"):
            self._do("fail")

    def _take(self) -> None:
        job, tag = self.fleet.take()
        self.leased.append((job, tag))
        self.fleet.storage.put(f"parts/{job.job_id}.w1", io.BytesIO(b"part"), content_type="audio/wav")

    def _succeed(self) -> None:
        job, tag = self.leased.pop(0)
        self.results[job.job_id] = self.fleet.succeed(job, tag)
        del self.jobs[job.job_id]

    def _fail(self) -> None:
        job, tag = self.leased.pop(0)
        self.fleet.fail(job, tag)
        del self.jobs[job.job_id]

    def _dead_letter(self) -> None:
        self.dead.append(self.fleet.dead_letter(*self.leased.pop(0)))

    def _replay(self) -> None:
        self.fleet.transport.replay(self.dead.pop(0))

    def _drop(self) -> None:
        letter = self.dead.pop(0)
        self.fleet.letters.drop(letter.job.job_id)
        del self.jobs[letter.job.job_id]

    def _lose(self) -> None:
        self.fleet.lose(self.leased.pop(0)[1])

    def _expire(self) -> None:
        job_id = next(iter(self.results))
        del self.results[job_id]
        self.fleet.forget(job_id)

    def _part(self, job: Job) -> str:
        return str(self.fleet.storage.uri(f"parts/{job.job_id}.w1"))


def test_in_any_order_every_unfinished_job_has_its_inputs(
    settings: FleetSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_gc, "LOOKS", 1)
    monkeypatch.setattr(uploads, "DELETION_PATIENCE", 0.0)
    with closing(Fleet(settings, InterruptedStorage(folder))) as fleet:
        fleet.submit(b"anything, so that the queue is known")
        AnyOrder.fleet = fleet
        run_state_machine_as_test(AnyOrder, settings=ANY_ORDER)
