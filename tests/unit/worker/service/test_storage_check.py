"""Whose fault it is that the storage refuses: the worker's, which steps aside until its probe works, or the job's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest
from omnifleet_shared.errors import BrokerUnavailable, DiskFull, OmnifleetError, StorageRefused, StorageUnavailable
from omnifleet_shared.storage import FolderStorage, StoredObject
from omnifleet_worker.service import storage_check as storage_check_module
from omnifleet_worker.service.storage_check import StorageCheck
from support.services import wait_until

REFUSED = StorageRefused("the object storage refuses (SignatureDoesNotMatch)")


class FakeStorage(FolderStorage):
    """A folder that refuses while it is told to."""

    refuses: OmnifleetError | None = None
    deletes = True
    puts = 0

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        self.puts += 1
        if self.refuses is not None:
            raise self.refuses
        return super().put(key, source, content_type=content_type)

    def delete(self, uri: str) -> None:
        if not self.deletes:
            raise StorageRefused("no right to delete")
        super().delete(uri)


class FakeAvailability:
    """In service or not."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.back = threading.Event()

    def take_out_of_service(self, reason: str) -> None:
        self.reason = reason

    def return_to_service(self) -> None:
        self.reason = None
        self.back.set()


class Stage:
    """A storage check among fakes; `ready` are the names of the fleet's workers."""

    def __init__(self, storage: FakeStorage) -> None:
        self.storage, self.availability = storage, FakeAvailability()
        self.ready: list[str] | None = ["me"]
        workers = SimpleNamespace(all=self._all, close=lambda: None)
        parts = [storage, self.availability, workers, "me"]
        self.check = StorageCheck(*cast(list[Any], parts), first_wait=0.01, longest_wait=0.02)

    def _all(self) -> list[Any]:
        if self.ready is None:
            raise BrokerUnavailable("away")
        return [SimpleNamespace(record=SimpleNamespace(name=name, state="ready")) for name in self.ready]


@pytest.fixture
def stage(tmp_path: Any) -> Iterator[Stage]:
    stage = Stage(FakeStorage(tmp_path))
    yield stage
    stage.check.stop()


def test_a_worker_whose_probe_is_refused_steps_aside_and_is_back_once_it_works(stage: Stage) -> None:
    stage.storage.refuses = REFUSED

    assert stage.check.is_workers_fault(REFUSED)

    assert stage.availability.reason == f"its storage refuses its own probe: {REFUSED.problem}"
    stage.storage.refuses = None
    assert stage.availability.back.wait(30)
    assert list(stage.storage.folder.rglob("worker-me")) == []


def test_while_the_storage_refuses_it_stays_aside(stage: Stage) -> None:
    stage.storage.refuses = REFUSED
    stage.check.is_workers_fault(REFUSED)

    wait_until(lambda: stage.storage.puts > 3, what="more than three probes")

    assert not stage.availability.back.is_set()


def test_a_worker_whose_probe_works_is_not_at_fault(stage: Stage) -> None:
    stage.storage.deletes = False  # no job needs that right

    assert not stage.check.is_workers_fault(REFUSED)
    assert stage.availability.reason is None


def test_a_storage_that_is_away_when_it_is_asked_proves_nothing(stage: Stage) -> None:
    stage.storage.refuses = StorageUnavailable("away")

    assert not stage.check.is_workers_fault(REFUSED)
    assert stage.availability.reason is None


def test_a_worker_that_is_aside_probes_no_more_for_each_job(stage: Stage) -> None:
    stage.availability.reason = "its device failed"

    assert stage.check.is_workers_fault(REFUSED)
    assert stage.storage.puts == 0


def test_what_stepped_aside_for_another_reason_meanwhile_stays(stage: Stage) -> None:
    stage.storage.refuses = REFUSED
    stage.check.is_workers_fault(REFUSED)
    stage.availability.reason = "its device failed"

    stage.storage.refuses = None

    [watch] = [thread for thread in threading.enumerate() if thread.name == "storage-watch"]
    watch.join(30)
    assert stage.availability.reason == "its device failed"


def test_a_full_disk_is_probed_with_room_for_results(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_check_module, "ROOM", 1000)
    sizes = []
    put = stage.storage.put
    monkeypatch.setattr(
        stage.storage,
        "put",
        lambda key, source, **kinds: (sizes.append(len(source.read())), source.seek(0), put(key, source, **kinds))[-1],
    )

    assert not stage.check.is_workers_fault(DiskFull("no room"))

    assert sizes == [1000]


def test_a_job_is_at_fault_where_all_ready_workers_agree(stage: Stage) -> None:
    stage.ready = ["me", "other"]

    assert not stage.check.is_jobs_fault(set())
    assert stage.check.is_jobs_fault({"other"})


def test_in_a_large_fleet_three_workers_suffice(stage: Stage) -> None:
    stage.ready = ["me", *(f"worker-{number}" for number in range(9))]

    assert not stage.check.is_jobs_fault({"worker-0"})
    assert stage.check.is_jobs_fault({"worker-0", "worker-1"})


def test_a_lone_worker_that_can_write_and_read_is_believed(stage: Stage) -> None:
    assert stage.check.is_jobs_fault(set())


def test_nobody_agrees_while_nobody_can_be_asked(stage: Stage) -> None:
    stage.ready = None

    assert not stage.check.is_jobs_fault({"other"})
