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
from typing import Any

from omnifleet_shared.errors import StorageUnavailable
from omnifleet_shared.settings import MEBIBYTE
from omnifleet_shared.storage import Storage

from .journal import Batch, Entry, Journal

INTERVAL = 5.0
"""Seconds between objects, and between looks for a request to stop."""
MAX_ENTRIES = 1000
"""Entries of an object."""
MAX_BYTES = 256 * MEBIBYTE
"""Largest object that is read."""
JSON = "application/json"


class StorageJournal(Journal):
    """Keeps a journal in storage: changes are there some seconds later, and all of them after a last `checkpoint`.

    Args:
        storage: of the fleet.
        uri: prefix of the journal's objects.

    Raises:
        ForeignURI: outside the storage.
        StorageUnavailable, StorageRefused: the storage.
    """

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage = storage
        self._prefix = storage.key(uri.rstrip("/"))
        self._folder = tempfile.TemporaryDirectory(prefix="omnifleet-journal-")
        super().__init__(Path(self._folder.name) / "journal")
        self._written = 0
        self._next_read = self._next_part = 0.0
        self._stop_requested = False
        self._run = self._next = 0
        """Number of this process's objects, and of the next one of them."""
        self._replay()

    def claim(self) -> None:
        """See `Journal`. Takes a number that no process had before."""
        self._put_part([])

    def begin(self, batch: Batch) -> None:
        """See `Journal`."""
        super().begin(batch)
        self._put("batch.json", batch.model_dump_json().encode())

    def checkpoint(self, *, now: bool = False) -> None:
        """See `Journal`. Raises StorageUnavailable only if it must be `now`."""
        if not now and time.monotonic() < self._next_part:
            return
        self._next_part = time.monotonic() + INTERVAL
        try:
            while entries := (changed := self.changes(self._written, MAX_ENTRIES))[1]:
                self._put_part(entries)
                self._written = changed[0]
        except StorageUnavailable:
            if now:
                raise

    @property
    def stop_requested(self) -> bool:
        """See `Journal`."""
        if time.monotonic() >= self._next_read:
            self._next_read = time.monotonic() + INTERVAL
            try:
                self._stop_requested = self._get("stop") == b"1"
            except StorageUnavailable:
                return self._stop_requested
        return self._stop_requested

    def request_stop(self, wanted: bool) -> None:
        """See `Journal`."""
        self._put("stop", b"1" if wanted else b"0")
        self._stop_requested = wanted

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
                    self.write(_entry(line))
            self._run += 1
        self._written = self.last_change

    def _parts_of(self, run: int, first: bytes) -> Iterator[bytes]:
        yield first
        for number in count(1):
            if (part := self._get(self._part(run, number))) is None:
                return
            yield part

    def _put_part(self, entries: list[Entry]) -> None:
        lines = "".join(f"{_line(entry)}\n" for entry in entries)
        self._put(self._part(self._run, self._next), lines.encode())
        self._next += 1

    def _part(self, run: int, number: int) -> str:
        return f"{run:06d}/{number:06d}.jsonl"

    def _put(self, name: str, data: bytes) -> None:
        self._storage.put(f"{self._prefix}/{name}", io.BytesIO(data), content_type=JSON)

    def _get(self, name: str) -> bytes | None:
        uri = self._storage.uri(f"{self._prefix}/{name}")
        return None if self._storage.stat(uri) is None else self._storage.get(uri, max_bytes=MAX_BYTES)


def _line(entry: Entry) -> str:
    fields = asdict(entry)
    # `round`, as the first journals have it.
    return json.dumps({"round": fields.pop("attempt"), **fields})


def _entry(line: bytes) -> Entry:
    fields: dict[str, Any] = json.loads(line)
    return Entry(attempt=fields.pop("round"), **fields)
