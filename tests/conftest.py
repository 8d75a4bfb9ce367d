"""Services that tests share: one Redis, one S3 server and one fleet a run; a fresh database and bucket a test.

Tests that kill, cut or restart something start their own.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from omnifleet import Client, FleetSettings
from support import processes, scripted_fleet, services
from support.fork_server import ForkServer

# Set before anything reads it: tests neither see nor touch the settings and credentials of whoever runs them.
for name in [name for name in os.environ if name.startswith(("OMNIFLEET_", "AWS_"))]:
    if not name.startswith("OMNIFLEET_TEST_") and "OMNIFLEET_TEST_S3_ENDPOINT" not in os.environ:
        del os.environ[name]
os.environ["HF_HUB_OFFLINE"] = "1"
# Torch's threads wait by spinning: where tests run side by side, several of a process cost a multiple of one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
if threading.current_thread() is threading.main_thread():
    # Shells start background jobs with SIGINT ignored, nohup with SIGHUP, which every process of a test would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

STUCK_SECONDS = 1200
"""Longer than any test's own time limit."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """End this process, and say where it was, where a test outlives even its time limit: the run goes on without it."""
    faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def signal_handlers() -> Iterator[None]:
    """Hold a test to leave signals as they were: processes of later tests inherit those that are ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.fixture
def one_day() -> None:
    """Begin the test where the day of UTC, in which quotas count, has two minutes left at least."""
    left = 86_400 - time.time() % 86_400
    if left < 120:
        time.sleep(left)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.RedisServer]:
    server = services.RedisServer(services.free_port(), tmp_path_factory.mktemp("redis"))
    with server.running():
        yield server


@pytest.fixture
def redis_url(redis_server: services.RedisServer) -> str:
    """A Redis with nothing in it."""
    redis_server.client().flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[services.S3Server]:
    with services.s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, with credentials for it in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    name = f"test-{uuid.uuid4().hex[:12]}"
    s3_server.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that serves as storage."""
    path = tmp_path / "storage"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with random weights."""
    from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint  # torch, which most tests do without

    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def aligner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny aligner with random weights."""
    from support.data.aligner_folder import write_tiny_aligner

    return write_tiny_aligner(tmp_path_factory.mktemp("aligner"))


@pytest.fixture(scope="session")
def fleet_environment(
    tmp_path_factory: pytest.TempPathFactory, s3_server: services.S3Server, checkpoint: Path, aligner: Path
) -> Iterator[dict[str, str]]:
    """Settings of a fleet on a Redis of its own and a bucket of its own."""
    redis = services.RedisServer(services.free_port(), tmp_path_factory.mktemp("fleet-redis"))
    bucket = f"fleet-{uuid.uuid4().hex[:12]}"
    s3_server.client().create_bucket(Bucket=bucket)
    with redis.running():
        yield {
            "OMNIFLEET_REDIS_URL": redis.url,
            "OMNIFLEET_STORAGE": f"s3://{bucket}/omni",
            "OMNIFLEET_S3_ENDPOINT": s3_server.endpoint,
            "OMNIFLEET_CHECKPOINT": str(checkpoint),
            "OMNIFLEET_ALIGNER": str(aligner),
            "OMNIFLEET_RETRY_BACKOFF": "0.2",
            **s3_server.environment,
        }


@pytest.fixture(scope="session")
def fleet_worker(
    fleet_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[processes.Process]:
    """The worker process of that fleet, ready."""
    with processes.worker(fleet_environment, tmp_path_factory.mktemp("logs") / "worker.log") as worker:
        worker.wait_until_ready()
        yield worker


@pytest.fixture
def settings(fleet_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> FleetSettings:
    """Settings of a producer in that fleet, with its credentials in the environment."""
    for name in [name for name in os.environ if name.startswith("OMNIFLEET_")]:
        monkeypatch.delenv(name)
    for name, value in fleet_environment.items():
        monkeypatch.setenv(name, value)
    return FleetSettings()


@pytest.fixture
def omni(settings: FleetSettings, fleet_worker: processes.Process) -> Iterator[Client]:
    """A client of the running fleet."""
    with Client(settings) as client:
        yield client


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Forks scripted workers."""
    with ForkServer() as started:
        yield started


@pytest.fixture
def scripted(tmp_path: Path, fork_server: ForkServer) -> Iterator[scripted_fleet.ScriptedFleet]:
    """A Redis, a storage and a client of their own; the test starts the workers."""
    with scripted_fleet.scripted_fleet(tmp_path, fork_server) as started:
        yield started
