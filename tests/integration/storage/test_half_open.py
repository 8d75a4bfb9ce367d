"""Connections to S3 that fall silent without an end: requests go on over others, once the silence is too long."""

from __future__ import annotations

import io
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage, open_storage, s3
from support import services

DATA = bytes(range(256)) * 4096
"""1 MiB: more than one connection buffers."""


@pytest.fixture
def proxy(s3_server: services.S3Server) -> Iterator[services.Proxy]:
    with services.Proxy(urlsplit(s3_server.endpoint).port or 80).running() as proxy:
        yield proxy


@pytest.fixture
def storage(bucket: str, proxy: services.Proxy, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Storage behind the proxy, with an open connection to it."""
    monkeypatch.setattr(s3, "ANSWER_SECONDS", 3.0)
    monkeypatch.setattr(s3, "CONNECT_SECONDS", 3.0)
    storage = open_storage(FleetSettings(storage=f"s3://{bucket}", s3_endpoint=f"http://127.0.0.1:{proxy.port}"))
    storage.put("before", io.BytesIO(DATA), content_type="audio/wav")
    return storage


def test_what_is_written_into_silence_is_written_again(storage: Storage, proxy: services.Proxy) -> None:
    proxy.silence()

    stored = storage.put("after", io.BytesIO(DATA), content_type="audio/wav")

    assert storage.get(stored.uri, max_bytes=len(DATA)) == DATA


def test_what_is_read_from_silence_is_read_again(storage: Storage, proxy: services.Proxy) -> None:
    proxy.silence()

    assert storage.get(storage.uri("before"), max_bytes=len(DATA)) == DATA
    assert storage.stat(storage.uri("before")) is not None
