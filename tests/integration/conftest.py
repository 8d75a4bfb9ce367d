"""One fleet for all tests that only send jobs to it; tests that kill, cut or restart start their own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import fleet
import pytest
import services
from omnifleet import Client, FleetSettings
from omnifleet_worker.models.tiny import write_tiny_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint with random weights."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def fleet_environment(
    tmp_path_factory: pytest.TempPathFactory, s3_server: services.S3Server, checkpoint: Path
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
            "OMNIFLEET_RETRY_BACKOFF": "0.2",
            **s3_server.environment,
        }


@pytest.fixture(scope="session")
def fleet_worker(fleet_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[fleet.Worker]:
    """The worker process of that fleet, ready."""
    with fleet.worker(fleet_environment, tmp_path_factory.mktemp("logs") / "worker.log") as worker:
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
def omni(settings: FleetSettings, fleet_worker: fleet.Worker) -> Iterator[Client]:
    """A client of the running fleet."""
    with Client(settings) as client:
        yield client
