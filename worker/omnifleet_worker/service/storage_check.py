"""Finds out whose fault it is that the storage refuses a job, or has no room: the worker's, or the job's.

A worker whose own probe is refused as well (wrong credentials, no such bucket, a full disk) steps aside, and its jobs
go to others. It probes again, less and less often, and goes on once a probe works. A job that is refused by workers
whose probes work is at fault itself, once all workers agree that are there.
"""

from __future__ import annotations

import io
import logging
import tempfile
import threading
from collections.abc import Collection, Iterable

from omnifleet_shared.broker.worker_registry import WorkerRegistry
from omnifleet_shared.errors import BrokerError, DiskFull, OmnifleetError, StorageRefused, StorageUnavailable
from omnifleet_shared.keys import PROBE_KEY
from omnifleet_shared.settings import MEBIBYTE
from omnifleet_shared.storage import Storage
from tenacity import RetryCallState, Retrying, wait_exponential

from .availability import Availability

logger = logging.getLogger(__name__)
PROBE = b"omnifleet worker"
ROOM = 64 * MEBIBYTE
"""A disk that has no room for so many bytes is full."""
AGREEMENT = 3
"""Workers that must have refused a job, where there are so many."""


class StorageCheck:
    """Probes the storage of one worker, and takes the worker out of service while the probe fails. Thread-safe.

    Args:
        storage: of the worker's settings.
        availability: takes the worker out of service, and back.
        workers: the live workers of the fleet.
        name: of this worker.
        first_wait: seconds between the first two probes of a worker that is out of service; doubled each time.
        longest_wait: seconds between two probes at most.
    """

    def __init__(
        self,
        storage: Storage,
        availability: Availability,
        workers: WorkerRegistry,
        name: str,
        *,
        first_wait: float = 1.0,
        longest_wait: float = 60.0,
    ) -> None:
        self._storage = storage
        self._availability = availability
        self._workers = workers
        self._name = name
        # One object for each worker: credentials that may not delete leave no more than that behind.
        self._key = PROBE_KEY.format(name=f"worker-{name.replace(':', '-')}")
        self._wait = wait_exponential(multiplier=first_wait, max=longest_wait)
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Probe no more, and close the connections to Redis."""
        self._stopping.set()
        self._workers.close()

    def is_workers_fault(self, error: StorageRefused | DiskFull) -> bool:
        """Probe the storage after this error of a job; where that fails too, take the worker out of service."""
        with self._lock:
            if self._availability.reason is not None:
                return True
            is_full = isinstance(error, DiskFull)
            found = self._probe(is_full)
            if not isinstance(found, StorageRefused | DiskFull):
                return False
            reason = f"its storage refuses its own probe: {found.problem}"
            self._availability.take_out_of_service(reason)
            watch = threading.Thread(target=self._watch, args=(reason, is_full), name="storage-watch", daemon=True)
            watch.start()
            return True

    def is_jobs_fault(self, refused_by: Iterable[str]) -> bool:
        """Whether the workers agree: this one, and those that refused the job before, are all that are ready, or many.

        Args:
            refused_by: names of workers that refused it before.
        """
        refused = {*refused_by, self._name}
        return len(refused) >= AGREEMENT or refused.issuperset(self._ready())

    def _ready(self) -> Collection[str]:
        try:
            return {one.record.name for one in self._workers.all() if one.record.state == "ready"}
        except BrokerError:
            return {""}  # nobody agrees while nobody can be asked

    def _probe(self, is_full: bool) -> OmnifleetError | None:
        """Write, read and delete an object, with room for results where the disk was full; gives what is wrong."""
        uri = self._storage.uri(self._key)
        probe = bytes(ROOM) if is_full and uri.startswith("file:") else PROBE
        try:
            if is_full:
                _write_locally(bytes(ROOM))
            self._storage.put(self._key, io.BytesIO(probe), content_type="application/octet-stream")
            self._storage.get(uri, max_bytes=len(probe))
        except (StorageRefused, StorageUnavailable) as error:
            return error
        self._delete(uri)
        return None

    def _delete(self, uri: str) -> None:
        try:
            self._storage.delete(uri)
        except (StorageRefused, StorageUnavailable) as error:
            # No job needs that right.
            logger.info("the probe is left behind: %s", error, extra={"action": "probe_left"})

    def _watch(self, reason: str, is_full: bool) -> None:
        state = RetryCallState(Retrying(), None, (), {})
        while not self._stopping.wait(self._wait(state)):
            state.attempt_number += 1
            error = self._probe(is_full)
            if error is None:
                break
            logger.warning("the storage refuses still: %s", error, extra={"action": "storage_refused"})
        # Not where it stepped aside for another reason meanwhile.
        if not self._stopping.is_set() and self._availability.reason == reason:
            self._availability.return_to_service()


def _write_locally(data: bytes) -> None:
    try:
        with tempfile.TemporaryFile() as file:
            file.write(data)
    except OSError as error:
        raise DiskFull(f"there is no room in {tempfile.gettempdir()}: {error}", None, "Make room") from error
