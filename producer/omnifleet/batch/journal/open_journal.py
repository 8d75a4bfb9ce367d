"""Where journals are: beside their job lists, or in the fleet's storage."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from omnifleet_shared.errors import InvalidJob, OmnifleetError

from ..sender import JobSender
from .journal import Journal
from .lock import BatchLock, FileBatchLock, RedisBatchLock
from .storage_journal import StorageJournal


def journal_location(jobs: Path, journal: str | None) -> str:
    """Return the path or URI of the journal; by default it is beside the list."""
    return journal or f"{jobs}.journal"


def batch_lock(location: str, sender: JobSender) -> BatchLock:
    """Make the lock of a journal; it is not held yet."""
    if "://" in location:
        return RedisBatchLock(location.rstrip("/"), sender.settings)
    return FileBatchLock(Path(location))


@contextmanager
def locked_journal(location: str, sender: JobSender) -> Generator[tuple[Journal, BatchLock]]:
    """Open the journal for writing, and hold its lock for the block.

    Raises:
        BatchRunning: another process works on it.
        JournalMismatch, StorageRefused, StorageUnavailable, ForeignURI: the journal.
    """
    lock = batch_lock(location, sender)
    try:
        lock.acquire()
        with _open(location, sender) as journal:
            journal.claim()
            try:
                yield journal, lock
            except BaseException:
                # What is not written is found out again; the error that ends the block is the one to report.
                with suppress(OmnifleetError):
                    journal.checkpoint(now=True)
                raise
    finally:
        lock.release()


@contextmanager
def open_journal(location: str, sender: JobSender) -> Generator[Journal]:
    """Open the journal of a batch that was begun, whoever works on it. Raises InvalidJob where there is none."""
    if "://" not in location and not Path(location).exists():
        raise InvalidJob(f"there is no journal {location!r}", "journal", "Begin the batch with omnifleet batch run")
    with _open(location, sender) as journal:
        yield journal


def is_running(location: str, sender: JobSender) -> bool:
    """Whether a process works on the journal."""
    lock = batch_lock(location, sender)
    try:
        return lock.is_held()
    finally:
        lock.release()


def _open(location: str, sender: JobSender) -> Journal:
    return StorageJournal(sender.storage, location) if "://" in location else Journal(Path(location))
