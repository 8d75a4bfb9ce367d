"""Garbage collection in storage: what no unfinished job and no kept result names is deleted, once it is old enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from omnifleet_shared.broker.deletions import Deletions
from omnifleet_shared.errors import InvalidSetting, StorageUnavailable
from omnifleet_shared.keys import COLLECTED, DELETION_LIFETIME
from omnifleet_shared.redis_client import connect_redis
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import ListedObject, Storage, open_storage
from omnifleet_shared.storage.base import TOUCH_AFTER

from ..batch.journal.open_journal import open_journal
from ..client import Client
from .needed_objects import Need, NeededObjects, Reason

YOUNGEST = 2 * TOUCH_AFTER
"""Seconds below which no object is deleted. A job may name what was touched `TOUCH_AFTER` ago; the rest is for the
uploads of its other media."""
BATCH = 1000
"""Objects that are announced, looked at and deleted together."""
LOOKS = 16
"""Objects that are looked at at once."""
MOST_SECONDS = DELETION_LIFETIME / 3
"""Time that a batch may take before its objects are deleted: later, their deletion might outlast the announcement."""
REREAD = 600.0
"""Seconds after which it is read anew what is needed. Jobs that were sent since are known by the age of their objects
alone, which must not grow beyond `YOUNGEST` meanwhile."""

Kept = Reason | Literal["young", "used"]
"""Why an object was kept: it is needed, too young, or was used again after it was found to be neither."""


@dataclass(frozen=True)
class Verdict:
    """What became of one object."""

    uri: str
    bytes: int
    age: float
    """Seconds since it was written or touched."""
    kept: Kept | None
    """Why it was kept; None where it was deleted, or would have been."""
    job_id: str | None = None
    """The job that needs it, where one does."""

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return {"uri": self.uri, "bytes": self.bytes, "age": round(self.age), "kept": self.kept, "job_id": self.job_id}


class GarbageCollector:
    """Deletes what nothing needs.

    Args:
        storage: of the fleet.
        read_needed: reads what is needed.
        deletions: where deletions are announced.
        older_than: seconds since an object was written or touched before which it is kept.

    Raises:
        InvalidSetting: `older_than` is below `YOUNGEST`.
    """

    def __init__(
        self, storage: Storage, read_needed: Callable[[], NeededObjects], deletions: Deletions, older_than: float
    ) -> None:
        if older_than < YOUNGEST:
            problem = f"objects younger than {YOUNGEST / 3600:g} h may belong to jobs that are just being sent"
            raise InvalidSetting(problem, "--older-than", f"Give {YOUNGEST / 3600:g} or more")
        self._storage = storage
        self._read_needed = read_needed
        self._deletions = deletions
        self._older_than = older_than

    def collect(self, prefixes: Sequence[str] = COLLECTED, *, dry_run: bool) -> Iterator[Verdict]:
        """Go through all objects below the prefixes, a thousand at a time, and tell of each what became of it.

        Args:
            prefixes: of storage keys.
            dry_run: delete nothing.

        Raises:
            BrokerUnavailable, InvalidMessage: nobody knows what is needed, and nothing more is deleted.
            StorageUnavailable, StorageRefused: the storage.
        """
        # Before anything is listed: what was stored since is young.
        needed, reread = self._read_needed(), time.monotonic() + REREAD
        for prefix in prefixes:
            listing = self._storage.list(prefix)
            while listed := list(islice(listing, BATCH)):
                if time.monotonic() > reread:
                    needed, reread = self._read_needed(), time.monotonic() + REREAD
                until = time.monotonic() + MOST_SECONDS
                judged = self._judge(listed, needed)
                yield from judged if dry_run else self._delete(judged, until)

    def _judge(self, listed: Sequence[ListedObject], needed: NeededObjects) -> list[Verdict]:
        shown = self._storage.clock()
        now = time.time() if shown is None else shown
        keys = {one.uri: self._storage.key(one.uri) for one in listed}
        needs = needed.needs(list(keys.values()))
        return [self._verdict(one, now - one.modified, needs.get(keys[one.uri])) for one in listed]

    def _verdict(self, listed: ListedObject, age: float, need: Need | None) -> Verdict:
        if need is not None:
            return Verdict(listed.uri, listed.bytes, age, need.reason, need.job_id)
        return Verdict(listed.uri, listed.bytes, age, "young" if age < self._older_than else None)

    def _delete(self, judged: Sequence[Verdict], until: float) -> list[Verdict]:
        unneeded = [one.uri for one in judged if one.kept is None]
        deleted = self._delete_old(unneeded, until) if unneeded else set[str]()
        return [one if one.kept or one.uri in deleted else replace(one, kept="used") for one in judged]

    def _delete_old(self, uris: Sequence[str], until: float) -> set[str]:
        """Delete those that nobody touched since they were listed, and give them."""
        self._deletions.announce(uris)
        # Once more, and only now: see `Deletions`.
        old = self._still_old(uris)
        if time.monotonic() > until:
            problem = f"to look at {len(uris)} objects took over {MOST_SECONDS:.0f} s"
            raise StorageUnavailable(problem, "storage", "Try again when there is less to do")
        self._storage.delete_many(list(old))
        # Not after an error: a request that was sent may still be carried out. The announcement expires.
        self._deletions.withdraw(uris)
        return old

    def _still_old(self, uris: Sequence[str]) -> set[str]:
        with ThreadPoolExecutor(LOOKS, thread_name_prefix="storage-gc") as threads:
            found = list(threads.map(self._storage.stat, uris))
        return {one.uri for one in found if one is not None and (one.age or 0.0) >= self._older_than}


def collect_garbage(
    settings: FleetSettings, older_than: float, prefixes: Sequence[str], journals: Sequence[str] = (), *, dry_run: bool
) -> Iterator[Verdict]:
    """Collect the garbage of a fleet's storage; see `GarbageCollector`, whose errors this raises too.

    Args:
        settings: of the fleet.
        older_than: seconds since an object was written or touched before which it is kept.
        prefixes: of storage keys.
        journals: paths or URIs of batches' journals, whose results are kept.
        dry_run: delete nothing.

    Raises:
        InvalidJob, JournalMismatch, ForeignURI: a journal.
    """
    storage = open_storage(settings)
    with closing(connect_redis(settings)) as redis:

        def read_needed() -> NeededObjects:
            needed = NeededObjects(redis, storage, settings.queue, older_than)
            for location in journals:
                needed.add_results(_journal_results(settings, location))
            return needed

        collector = GarbageCollector(storage, read_needed, Deletions(redis), older_than)
        yield from collector.collect(prefixes, dry_run=dry_run)


def _journal_results(settings: FleetSettings, location: str) -> Iterator[str]:
    with Client(settings) as client, open_journal(location, client.sender) as journal:
        for entry in journal.entries("succeeded"):
            result = entry.state().result
            files = (result.artifact, result.video) if result is not None else ()
            yield from (file.uri for file in files if file is not None)
