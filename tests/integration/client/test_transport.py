"""The client's side of Redis: what is written when a job is sent, and how its state comes back."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from omnifleet import (
    AsyncClient,
    BrokerRefused,
    BrokerUnavailable,
    Client,
    InvalidSetting,
    JobCancelled,
    JobStatus,
    OmnifleetError,
    Progress,
    ResultTimeout,
    StorageUnavailable,
    UnknownJob,
)
from omnifleet.results.results import open_result
from omnifleet.testing import FakeClient, FakeFleet
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.transport import Channel
from omnifleet_shared.errors import error_classes
from omnifleet_shared.job_state import watched_jobs
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import EditJob, Job, read_job
from omnifleet_shared.schema.tasks import DescribedEdit
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import open_storage
from support import services

SOUND = b"RIFF and so on"


@pytest.fixture
def settings(redis_url: str, folder: Path) -> FleetSettings:
    return FleetSettings(redis_url=redis_url, storage=f"file://{folder}", redis_timeout=1)


@pytest.fixture
def client(settings: FleetSettings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def worker(settings: FleetSettings) -> Iterator[JobStates]:
    """The states over a connection of its own, as a worker would write them."""
    with closing(JobStates.connect(settings)) as states:
        yield states


def edit_job(**values: Any) -> Job:
    secret = Media(uri="s3://bucket/rain.wav?signature=secret")
    return EditJob(task=DescribedEdit(name="add", audio=secret, desc="rain sounds"), **values)


def test_a_job_is_sent_whose_connection_breaks_while_the_queue_is_declared(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare: Any = Channel._queue_bind
    breaks = [ConnectionResetError("broken")]

    def break_once(*args: Any) -> None:
        if breaks:
            raise breaks.pop()
        declare(*args)

    monkeypatch.setattr(Channel, "_queue_bind", break_once)

    job = client.understand(question="What is heard?")

    assert job.status() is JobStatus.QUEUED


def write_success(redis_server: services.RedisServer, job_id: str, text: str) -> None:
    result = {
        "schema_version": 1,
        "job_id": job_id,
        "namespace": "understand",
        "task": "caption",
        "text": text,
        "model": {"name": "audio-omni", "revision": "r", "licence": "l"},
        "seed": 1,
        "attempts": 1,
        "timings": {},
    }
    record = json.dumps({"status": "SUCCESS", "result": result, "task_id": job_id})
    with closing(redis_server.client()) as redis:
        redis.set(f"celery-task-meta-{job_id}", record)
        redis.publish(f"celery-task-meta-{job_id}", record)


class TestSubmitting:
    @pytest.mark.parametrize(("priority", "queue"), [("interactive", "audio-omni"), ("batch", "audio-omni\x06\x166")])
    def test_one_message_and_a_record_are_written(
        self, client: Client, redis_server: services.RedisServer, priority: Any, queue: str
    ) -> None:
        job = client.edit("Add", SOUND, desc="rain sounds", priority=priority)

        with closing(redis_server.client()) as redis:
            messages = [json.loads(message) for message in redis.lrange(queue, 0, -1)]
            lists = {key for key in redis.keys("audio-omni*") if redis.type(key) == b"list"}
        [message] = messages
        _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        assert lists == {queue.encode()}
        assert job.status() is JobStatus.QUEUED
        assert (message["headers"]["task"], message["headers"]["id"]) == ("omnifleet.edit", job.id)
        assert message["content-type"] == "application/json"
        assert message["properties"]["priority"] == {"interactive": 0, "batch": 6}[priority]
        assert read_job(kwargs["job"]).job_id == job.id

    def test_operators_see_what_a_job_is_about_and_no_uri(
        self, settings: FleetSettings, redis_server: services.RedisServer
    ) -> None:
        with closing(CeleryTransport(settings)) as transport:
            transport.submit(edit_job())

        with closing(redis_server.client()) as redis:
            headers = json.loads(redis.lrange("audio-omni", 0, -1)[0])["headers"]
        shown = headers["argsrepr"] + headers["kwargsrepr"]
        assert "edit.add" in shown
        assert "rain sounds" in shown
        assert "secret" not in shown

    def test_media_are_in_the_storage_before_the_message_is_sent(self, client: Client, folder: Path) -> None:
        client.edit("add", SOUND, desc="rain")

        assert [path.read_bytes() for path in folder.rglob("*") if path.is_file()] == [SOUND]

    def test_settings_of_another_celery_app_in_the_environment_change_nothing(
        self, settings: FleetSettings, redis_server: services.RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nowhere = f"redis://127.0.0.1:{services.free_port()}/0"
        for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
            monkeypatch.setenv(name, nowhere)

        with Client(settings) as client:
            client.generate("t2a", "rain")

        with closing(redis_server.client()) as redis:
            assert redis.llen("audio-omni") == 1

    def test_many_threads_send_at_once(self, client: Client, redis_server: services.RedisServer) -> None:
        threads = [threading.Thread(target=client.generate, args=("t2a", f"sound {n}")) for n in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with closing(redis_server.client()) as redis:
            assert redis.llen("audio-omni") == 24

    def test_closing_one_client_leaves_another_with_the_same_settings_open(self, settings: FleetSettings) -> None:
        with Client(settings) as one:
            with Client(settings) as other:
                other.generate("t2a", "rain")
                one.generate("t2a", "rain")

            assert one.generate("t2a", "rain").status() is JobStatus.QUEUED


class TestOutages:
    def test_redis_that_is_down_is_told_within_seconds(self, folder: Path) -> None:
        settings = FleetSettings(redis_url=f"redis://127.0.0.1:{services.free_port()}/0", storage=f"file://{folder}")
        start = time.monotonic()

        with Client(settings) as client, pytest.raises(BrokerUnavailable) as outage:
            client.generate("t2a", "rain")

        assert time.monotonic() - start < 60
        assert outage.value.remedy

    def test_redis_that_never_answers_is_told_within_seconds(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
            settings = FleetSettings(redis_url=url, storage=f"file://{folder}", redis_timeout=0.5)
            start = time.monotonic()

            with Client(settings) as client, pytest.raises(BrokerUnavailable):
                client.generate("t2a", "rain")

        assert time.monotonic() - start < 60

    def test_a_job_that_could_not_be_sent_leaves_no_record(
        self, settings: FleetSettings, redis_server: services.RedisServer
    ) -> None:
        with closing(redis_server.client()) as redis, closing(CeleryTransport(settings)) as transport:
            # The queue's key holds no list: the record can be written, the message cannot.
            redis.set("audio-omni", "in the way")

            with pytest.raises(BrokerRefused, match="could not be sent"):
                transport.submit(edit_job(job_id="lost"))

            assert redis.keys("celery-task-meta-*") == []

    def test_storage_that_is_down_is_told_and_nothing_is_sent(
        self, redis_url: str, redis_server: services.RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
        endpoint = f"http://127.0.0.1:{services.free_port()}"

        with (
            Client(redis_url=redis_url, storage="s3://bucket/media", s3_endpoint=endpoint) as client,
            pytest.raises(StorageUnavailable),
        ):
            client.edit("add", SOUND, desc="rain")

        with closing(redis_server.client()) as redis:
            assert redis.keys("*") == []

    def test_a_restarted_redis_is_found_again(self, tmp_path: Path, folder: Path) -> None:
        server = services.RedisServer(services.free_port(), tmp_path)
        settings = FleetSettings(redis_url=server.url, storage=f"file://{folder}", redis_timeout=1)

        with Client(settings) as client:
            with server.running():
                client.generate("t2a", "rain")
            with pytest.raises(BrokerUnavailable):
                client.generate("t2a", "rain")
            with server.running():
                job = client.generate("t2a", "rain")
                assert job.status() is JobStatus.QUEUED


class TestWaiting:
    def test_it_wakes_on_a_state_written_over_another_connection(
        self, client: Client, redis_server: services.RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watched_jobs, "POLL_INTERVAL", 3600)  # it is notified, and does not only poll
        job = client.understand("caption", SOUND)
        writer = threading.Timer(0.2, write_success, (redis_server, job.id, "A dog barks."))
        writer.start()

        assert job.result(timeout=600).text == "A dog barks."
        writer.join()

    def test_time_runs_out_and_the_job_goes_on(
        self, client: Client, redis_server: services.RedisServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watched_jobs, "POLL_INTERVAL", 3600)  # the end of a wait is not that of a poll
        job = client.understand("caption", SOUND)
        start = time.monotonic()

        with pytest.raises(ResultTimeout):
            job.result(timeout=0.2)

        assert 0.2 <= time.monotonic() - start < 600
        write_success(redis_server, job.id, "A dog barks.")
        assert client.job(job.id).result(timeout=0).text == "A dog barks."

    def test_an_unknown_id_is_told_by_every_method(self, client: Client) -> None:
        job = client.job("never-sent")

        for use in (job.status, job.progress, job.cancel, lambda: job.result(timeout=60)):
            with pytest.raises(UnknownJob):
                use()

    def test_progress_is_read(self, client: Client, worker: JobStates) -> None:
        job = client.generate("t2a", "rain")
        before = job.progress()
        worker.write_progress({job.id: Progress(step=37, steps=100, eta=4.1)})

        assert (before, job.progress()) == (Progress(), Progress(step=37, steps=100, eta=4.1))

    @pytest.mark.parametrize("cls", error_classes().values(), ids=lambda cls: cls.__name__)
    def test_a_workers_error_comes_back_as_its_own_class(
        self, client: Client, worker: JobStates, cls: type[OmnifleetError]
    ) -> None:
        services.mark_failed(worker, "broken", cls("it broke", "audio", "Mend it", {"limit": 3}))

        with pytest.raises(cls) as failure:
            client.job("broken").result(timeout=60)

        error = failure.value
        assert type(error) is cls
        assert (error.problem, error.field, error.remedy, error.details) == (
            "it broke",
            "audio",
            "Mend it",
            {"limit": 3},
        )


class TestCancelling:
    def test_the_wish_is_left_for_the_worker(self, client: Client, worker: JobStates) -> None:
        job = client.generate("t2a", "rain")

        job.cancel()

        assert worker.cancelled([job.id, "another"]) == {job.id}

    def test_a_job_that_is_done_is_left_alone(self, client: Client, worker: JobStates) -> None:
        services.mark_failed(worker, "done", JobCancelled("someone did"))

        client.job("done").cancel()

        assert worker.cancelled(["done"]) == set()
        assert client.job("done").status() is JobStatus.CANCELLED


class TestObjectStorage:
    def test_audio_is_read_with_credentials_and_by_link_without_them(
        self, bucket: str, s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = FleetSettings(storage=f"s3://{bucket}/media", s3_endpoint=s3_server.endpoint)
        storage = open_storage(settings)
        made = FakeFleet(storage=storage)
        with FakeClient(fleet=made) as maker:
            audio = maker.generate("t2a", "rain", seconds=0.1).result()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        stranger = open_result(audio.record, open_storage(settings), 60)

        assert audio.audio.read()[:4] == b"RIFF"
        assert stranger.audio is not None
        assert stranger.audio.read() == audio.audio.read()

    def test_what_is_uploaded_is_found_by_its_hash(
        self, bucket: str, s3_server: services.S3Server, redis_url: str
    ) -> None:
        with Client(redis_url=redis_url, storage=f"s3://{bucket}", s3_endpoint=s3_server.endpoint) as client:
            for _ in range(2):
                client.edit("add", SOUND, desc="rain")

        listed = s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]
        assert [entry["Size"] for entry in listed] == [len(SOUND)]


class TestTenants:
    def test_a_client_s_jobs_are_its_tenant_s_and_each_may_be_another_s(self, settings: FleetSettings) -> None:
        with Client(settings, tenant="acme") as omni, redis.Redis.from_url(settings.redis_url) as queue:
            omni.understand(question="?")
            list(omni.of_tenant("globex").batch([{"task": "generate.t2a", "text": 7}]))
            omni.of_tenant("globex").understand(question="?")

            assert tenants_in(queue) == {"acme": 1, "globex": 1}
            [message] = queue.lrange("omnifleet:tenants:omnifleet:answers:audio-omni:jobs:acme", 0, -1)
            headers = json.loads(message)["headers"]
            # What Flower shows of it, beside the rest.
            assert (headers["tenant"], "tenant=acme" in headers["kwargsrepr"]) == ("acme", True)

    def test_so_are_those_of_an_async_client(self, settings: FleetSettings) -> None:
        async def ask() -> None:
            async with AsyncClient(settings) as omni:
                await omni.understand(question="?")
                await omni.of_tenant("acme").understand(question="?")
                await omni.of_tenant("acme").close()
                await omni.of_tenant("globex").understand(question="?")

        asyncio.run(ask())

        with redis.Redis.from_url(settings.redis_url) as queue:
            assert (tenants_in(queue), queue.llen("omnifleet:answers:audio-omni")) == ({"acme": 1, "globex": 1}, 1)

    @pytest.mark.parametrize("name", ["", "a b", "-a", "x" * 65, 'a"', "*"])
    def test_what_is_no_name_is_refused(self, client: Client, settings: FleetSettings, name: str) -> None:
        with pytest.raises(InvalidSetting) as refused:
            client.of_tenant(name)
        with pytest.raises(InvalidSetting):
            Client(settings, tenant=name or "?")

        assert refused.value.field == "tenant"


def tenants_in(queue: redis.Redis) -> dict[str, int]:
    """Messages that wait, by their tenants."""
    names = [name.decode() for name in queue.keys("omnifleet:tenants:*audio-omni:jobs:*")]
    return {name.rpartition(":")[2]: queue.llen(name) for name in names}
