"""Services that tests share: one Redis and one S3 server a run; a fresh database and a fresh bucket a test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import services

# Set before anything reads it: tests neither see nor touch the settings and credentials of whoever runs them.
for name in [name for name in os.environ if name.startswith(("OMNIFLEET_", "AWS_"))]:
    if not name.startswith("OMNIFLEET_TEST_") and "OMNIFLEET_TEST_S3_ENDPOINT" not in os.environ:
        del os.environ[name]
os.environ["HF_HUB_OFFLINE"] = "1"


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
