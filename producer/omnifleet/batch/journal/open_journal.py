"""Where journals are: beside their job lists, or in the fleet's storage."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from omnifleet_shared.errors import InvalidJob, OmnifleetError

from ..sender import JobSender
from .journal import Journal
from .lock import FileGuard, FleetGuard, Guard
from .s3_journal import StoredJournal


def journal_place(jobs: Path, journal: str | None) -> str:
    """Path or URI of the journal; by default beside the list."""
    return journal or f"{jobs}.journal"


def guard_of(place: str, fleet: JobSender) -> Guard:
    """The guard of a journal; not held yet."""
    return FleetGuard(place.rstrip("/"), fleet.settings) if "://" in place else FileGuard(Path(place))


@contextmanager
def working_on(place: str, fleet: JobSender) -> Generator[tuple[Journal, Guard]]:
    """The journal and its guard, held for the block.

    Raises:
        BatchRunning: another process works on it.
        JournalMismatch, StorageRefused, StorageUnavailable, ForeignURI: the journal.
    """
    guard = guard_of(place, fleet)
    try:
        guard.acquire()
        with _opened(place, fleet) as journal:
            journal.claim()
            try:
                yield journal, guard
            except BaseException:
                # What is not written is found out again; the error that ends the block is the one to tell.
                with suppress(OmnifleetError):
                    journal.checkpoint(now=True)
                raise
    finally:
        guard.release()


@contextmanager
def looking_at(place: str, fleet: JobSender) -> Generator[Journal]:
    """The journal of a batch that was begun, whoever works on it. Raises InvalidJob where there is none."""
    if "://" not in place and not Path(place).exists():
        raise InvalidJob(f"there is no journal {place!r}", "journal", "Begin the batch with omnifleet batch run")
    with _opened(place, fleet) as journal:
        yield journal


def is_running(place: str, fleet: JobSender) -> bool:
    """Whether a process works on the journal."""
    guard = guard_of(place, fleet)
    try:
        return guard.is_held()
    finally:
        guard.release()


def _opened(place: str, fleet: JobSender) -> Journal:
    return StoredJournal(fleet.storage, place) if "://" in place else Journal(Path(place))
