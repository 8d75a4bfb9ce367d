"""A journal in object storage: what changed goes there in small objects, and comes from there into a temporary file.

Every process that works on the batch writes objects of its own, numbered one after the other. They hold facts alone
(this line's job ended so), which are the same whoever writes them: one that lost the batch and does not know it yet can
spoil nothing.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

from omnifleet_shared.errors import StorageUnavailable
from omnifleet_shared.settings import MEBIBYTE
from omnifleet_shared.storage import Storage

from .journal import Batch, Entry, Journal

EVERY = 5.0
"""Seconds between objects, and between looks for a wish to stop."""
AT_ONCE = 1000
"""Entries of an object."""
LARGEST = 256 * MEBIBYTE
JSON = "application/json"


class StoredJournal(Journal):
    """See `Journal`; changes are in storage some seconds later, and all of them after `close`.

    Args:
        storage: of the fleet.
        uri: a folder in it, so to speak.

    Raises:
        ForeignURI: outside the storage.
        StorageUnavailable, StorageRefused: the storage.
    """

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage = storage
        self._home = storage.key(uri.rstrip("/"))
        self._folder = tempfile.TemporaryDirectory(prefix="omnifleet-journal-")
        super().__init__(Path(self._folder.name) / "journal")
        self._written = 0
        self._next_look = self._next_part = 0.0
        self._stop = False
        self._run = self._next = 0
        """Number of this process's objects, and of the next one of them."""
        self._replay()

    def claim(self) -> None:
        """Write from now on, under a number that no process had before. The batch's guard must be held."""
        self._put_part([])

    def begin(self, batch: Batch) -> None:
        """See `Journal`."""
        super().begin(batch)
        self._put("batch.json", batch.model_dump_json().encode())

    def checkpoint(self, *, now: bool = False) -> None:
        """Write what changed, if it is time. Raises StorageUnavailable only if it must be `now`."""
        if not now and time.monotonic() < self._next_part:
            return
        self._next_part = time.monotonic() + EVERY
        try:
            while entries := (changed := self.changes(self._written, AT_ONCE))[1]:
                self._put_part(entries)
                self._written = changed[0]
        except StorageUnavailable:
            if now:
                raise

    @property
    def stop_wanted(self) -> bool:
        """See `Journal`."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + EVERY
            try:
                self._stop = self._get("stop") == b"1"
            except StorageUnavailable:
                return self._stop
        return self._stop

    def want_stop(self, wanted: bool) -> None:
        """See `Journal`."""
        self._put("stop", b"1" if wanted else b"0")
        self._stop = wanted

    def close(self) -> None:
        """See `Journal`."""
        super().close()
        self._folder.cleanup()

    def _replay(self) -> None:
        batch = self._get("batch.json")
        if batch is not None:
            super().begin(Batch.model_validate_json(batch))
        while (first := self._get(self._part(self._run, 0))) is not None:
            for part in self._parts_of(self._run, first):
                for line in part.splitlines():
                    self.write(Entry(**json.loads(line)))
            self._run += 1
        self._written = self.last_change

    def _parts_of(self, run: int, first: bytes) -> Iterator[bytes]:
        yield first
        for number in count(1):
            if (part := self._get(self._part(run, number))) is None:
                return
            yield part

    def _put_part(self, entries: list[Entry]) -> None:
        lines = "".join(f"{json.dumps(asdict(entry))}\n" for entry in entries)
        self._put(self._part(self._run, self._next), lines.encode())
        self._next += 1

    def _part(self, run: int, number: int) -> str:
        return f"{run:06d}/{number:06d}.jsonl"

    def _put(self, name: str, data: bytes) -> None:
        self._storage.put(f"{self._home}/{name}", io.BytesIO(data), content_type=JSON)

    def _get(self, name: str) -> bytes | None:
        uri = self._storage.uri(f"{self._home}/{name}")
        return None if self._storage.stat(uri) is None else self._storage.get(uri, max_bytes=LARGEST)
