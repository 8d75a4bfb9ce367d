"""Storage that is away or refuses, and a Redis that is full or forgetful, seen from the producer's side."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from omnifleet import BrokerUnavailable, Client, FleetSettings, JobStatus
from support import services
from support.data import media_files
from support.fork_server import ForkServer

WAIT = 240.0


@pytest.fixture
def proxy(s3_server: services.S3Server) -> Iterator[services.Proxy]:
    """The way to the storage, which can be cut."""
    with services.Proxy(int(s3_server.endpoint.rpartition(":")[2])).running() as way:
        yield way


@pytest.fixture
def environment(redis_url: str, bucket: str, proxy: services.Proxy, s3_server: services.S3Server) -> dict[str, str]:
    """Of a worker whose storage lies behind the proxy."""
    return {
        "OMNIFLEET_REDIS_URL": redis_url,
        "OMNIFLEET_STORAGE": f"s3://{bucket}/omni",
        "OMNIFLEET_S3_ENDPOINT": f"http://127.0.0.1:{proxy.port}",
        **s3_server.environment,
    }


@pytest.fixture
def omni(redis_url: str, bucket: str, s3_server: services.S3Server) -> Iterator[Client]:
    """A client that reaches the storage directly."""
    settings = FleetSettings(redis_url=redis_url, storage=f"s3://{bucket}/omni", s3_endpoint=s3_server.endpoint)
    with Client(settings) as client:
        yield client


def test_storage_that_is_away_is_waited_for_and_nothing_is_computed_twice(
    environment: dict[str, str], omni: Client, proxy: services.Proxy, tmp_path: Path, fork_server: ForkServer
) -> None:
    with fork_server.worker(environment, tmp_path / "worker.log") as worker:
        worker.wait_until_ready()
        proxy.cut()
        fetching = omni.edit("add", media_files.wav(1.0), desc="rain", steps=1)
        storing = omni.generate("t2a", "a bell", seconds=1, steps=1, seed=5)
        services.wait_until(lambda: worker.log.read_text().count('"job_waits"') >= 2, WAIT, "both jobs wait")

        threading.Timer(1.0, proxy.heal).start()

        assert storing.result(WAIT).attempts == 1
        assert storing.result(WAIT).audio.seconds == 1
        assert fetching.result(WAIT).attempts == 1
        assert "job_retried" not in worker.log.read_text()


def test_a_retry_waits_outside_the_worker_and_is_counted(
    environment: dict[str, str], omni: Client, proxy: services.Proxy, tmp_path: Path, fork_server: ForkServer
) -> None:
    hurried = {"OMNIFLEET_STORAGE_PATIENCE": "0", "OMNIFLEET_CONCURRENCY": "1", "OMNIFLEET_RETRY_BACKOFF": "6"}
    with fork_server.worker(environment | hurried, tmp_path / "worker.log") as worker:
        worker.wait_until_ready()
        proxy.cut()
        fetching = omni.understand("caption", media_files.wav(1.0), max_new_tokens=1)
        services.wait_until(lambda: fetching.status() is JobStatus.RETRYING, WAIT, "a retry")

        assert omni.understand(question="Is the only place free?", max_new_tokens=1).result(WAIT).text

        proxy.heal()
        assert fetching.result(WAIT).attempts > 1


def test_a_finished_result_waits_for_its_storage_however_impatient_the_worker_is(
    environment: dict[str, str], omni: Client, proxy: services.Proxy, tmp_path: Path, fork_server: ForkServer
) -> None:
    hurried = {"OMNIFLEET_STORAGE_PATIENCE": "0", "OMNIFLEET_RETRY_BACKOFF": "0.1"}
    with fork_server.worker(environment | hurried, tmp_path / "worker.log") as worker:
        worker.wait_until_ready()
        proxy.cut()
        storing = omni.generate("t2a", "a bell", seconds=1, steps=1)
        worker.wait_until_logged('"job_waits"')

        proxy.heal()

        assert storing.result(WAIT).attempts == 1
        assert worker.log.read_text().count("scripted_finished") == 1


def test_a_worker_that_is_told_to_end_still_stores_what_waited_for_its_storage(
    environment: dict[str, str], omni: Client, proxy: services.Proxy, tmp_path: Path, fork_server: ForkServer
) -> None:
    with fork_server.worker(environment, tmp_path / "worker.log") as worker:
        worker.wait_until_ready()
        proxy.cut()
        storing = omni.generate("t2a", "a bell", seconds=1, steps=1)
        worker.wait_until_logged('"job_waits"')
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_until_logged("worker_drains")

        proxy.heal()

        assert worker.process.wait(WAIT) == 0
        assert storing.result(WAIT).attempts == 1
        assert worker.log.read_text().count("scripted_finished") == 1


def test_a_redis_that_is_full_refuses_the_job_and_says_so(tmp_path: Path, folder: Path) -> None:
    server = services.RedisServer(services.free_port(), tmp_path)
    with server.running(), Client(FleetSettings(redis_url=server.url, storage=f"file://{folder}")) as omni:
        server.client().config_set("maxmemory", "1")

        with pytest.raises(BrokerUnavailable, match="maxmemory"):
            omni.understand(question="Is there room?")

        server.client().config_set("maxmemory", "0")
        assert server.client().llen("audio-omni") == 0


def test_a_redis_that_forgets_is_refused_by_the_worker(tmp_path: Path, folder: Path, fork_server: ForkServer) -> None:
    server = services.RedisServer(services.free_port(), tmp_path)
    environment = {
        "OMNIFLEET_REDIS_URL": server.url,
        "OMNIFLEET_STORAGE": f"file://{folder}",
    }
    with server.running():
        server.client().config_set("maxmemory", "100mb")
        server.client().config_set("maxmemory-policy", "allkeys-lru")
        with fork_server.worker(environment, tmp_path / "worker.log") as worker:
            assert worker.process.wait(timeout=WAIT) != 0

    assert "noeviction" in worker.log.read_text()


def test_a_worker_waits_for_a_redis_that_starts_later(tmp_path: Path, folder: Path, fork_server: ForkServer) -> None:
    server = services.RedisServer(services.free_port(), tmp_path)
    environment = {
        "OMNIFLEET_REDIS_URL": server.url,
        "OMNIFLEET_STORAGE": f"file://{folder}",
    }
    with fork_server.worker(environment, tmp_path / "worker.log") as worker:
        services.wait_until(lambda: "worker_waits" in worker.log.read_text(), WAIT, "the worker waits")

        with server.running():
            worker.wait_until_ready()
