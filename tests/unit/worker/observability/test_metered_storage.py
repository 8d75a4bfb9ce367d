"""Storage whose errors are counted does what the storage under it does."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from omnifleet_shared.errors import MediaNotFound, StorageUnavailable
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage, open_storage
from omnifleet_shared.storage.base import ByteStream
from omnifleet_worker.observability.metered_storage import MeteredStorage
from prometheus_client import CollectorRegistry, Counter


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(FleetSettings(storage=tmp_path.as_uri()))


@pytest.fixture
def errors() -> Counter:
    return Counter("errors", "Errors by operation and class.", ["operation", "error"], registry=CollectorRegistry())


def test_a_stream_begins_where_it_is_asked_to(storage: Storage, errors: Counter) -> None:
    metered = MeteredStorage(storage, errors)
    uri = metered.put("digits", io.BytesIO(b"0123456789"), content_type="text/plain").uri

    with metered.open(uri, start=4) as rest, metered.open(uri) as whole:
        assert (rest.read(99), whole.read(99)) == (b"456789", b"0123456789")


def test_only_what_the_storage_is_to_blame_for_is_counted(
    storage: Storage, errors: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uri: str, *, start: int = 0) -> ByteStream:
        raise StorageUnavailable("the storage does not answer")

    metered = MeteredStorage(storage, errors)
    with pytest.raises(MediaNotFound):
        metered.open(storage.uri("nothing"))
    monkeypatch.setattr(storage, "open", fail)
    with pytest.raises(StorageUnavailable):
        metered.open(storage.uri("nothing"))

    (family,) = errors.collect()
    counted = {
        tuple(sample.labels.values()): sample.value for sample in family.samples if sample.name.endswith("total")
    }
    assert counted == {("get", "StorageUnavailable"): 1.0}
