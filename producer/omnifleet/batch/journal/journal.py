"""What became of every line so far, in an SQLite file, from which a batch is resumed however its process ended.

A line's job has an id that follows from the batch, the line and the attempt, and the fleet takes a job of one id once.
So it does no harm that the journal may lag behind: what is sent again under its id is joined, not run again.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from omnifleet_shared.errors import InvalidJob, JournalMismatch, StorageRefused
from omnifleet_shared.schema.base import Record
from omnifleet_shared.schema.job_state import JobState, failure_record, read_state, success_record
from omnifleet_shared.schema.results import JobStatus
from pydantic import ValidationError

BUSY = 10.0
"""Seconds to wait for another process that writes: `batch cancel` does, while the batch runs."""
TABLES = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lines (
    line INTEGER PRIMARY KEY,
    round INTEGER NOT NULL,
    status TEXT NOT NULL,
    job_id TEXT NOT NULL,
    sent_at REAL,
    reason TEXT,
    record TEXT,
    change INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS lines_by_status ON lines (status);
CREATE INDEX IF NOT EXISTS lines_by_change ON lines (change);
PRAGMA user_version = 1;
COMMIT;
"""
# The columns are those of `Entry`, in its order; `round` is its `attempt`.
COLUMNS = "line, round, status, job_id, sent_at, reason, record"
WRITE = f"""
INSERT OR REPLACE INTO lines ({COLUMNS}, change)
VALUES (?, ?, ?, ?, ?, ?, ?, (SELECT COALESCE(MAX(change), 0) + 1 FROM lines))
"""

LineStatus = Literal["sent", "again", "succeeded", "failed", "cancelled"]
"""What became of a line; one that was never sent has no entry. `again` is how journals and manifests spell `RETRY`."""
RETRY: LineStatus = "again"
"""The line failed in its last attempt, and is to be sent in another one."""


class Batch(Record):
    """The batch that a journal belongs to."""

    batch_id: str
    jobs: str
    """Path of the job list."""
    fingerprint: str
    """Hash of the list and of what its lines have in common."""
    template: dict[str, str]
    ignored: tuple[str, ...]
    count: int
    """Jobs in the list."""
    out: str
    """Folder or URI that the manifest goes to."""

    def job_id(self, line: int, attempt: int) -> str:
        """Return the id of a line's job in an attempt."""
        return f"batch-{self.batch_id}-{line}-{attempt}"


@dataclass(frozen=True)
class Entry:
    """What is known of one line."""

    line: int
    attempt: int
    """0, and one more for each time that it was to be done anew."""
    status: LineStatus
    job_id: str
    sent_at: float | None
    """Unix time just before it was sent."""
    reason: str | None
    """Class of its error."""
    record: str | None
    """Its final state, as the fleet recorded it."""

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status in ("succeeded", "failed", "cancelled")

    def state(self) -> JobState:
        """Read the final state in the record."""
        return read_state((self.record or "").encode())


@dataclass
class Counts:
    """How many lines have which status."""

    sent: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    """Failed and cancelled lines by the class of their error."""

    @property
    def ended(self) -> int:
        """Lines that have nothing left to do."""
        return self.succeeded + self.failed + self.cancelled

    def add(self, status: str, reason: str | None, count: int = 1) -> None:
        """Count lines of a status."""
        if status != RETRY:
            setattr(self, status, getattr(self, status) + count)
        if reason and status in ("failed", "cancelled"):
            self.reasons[reason] = self.reasons.get(reason, 0) + count


class Journal:
    """Keeps the journal in one file. Every change is there for good when its method returns, save from a loss of power.

    Args:
        path: the file; made where there is none.

    Raises, as all its methods do:
        JournalMismatch: a file that is no journal.
        StorageRefused: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _typed_errors(path):
            self._database = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._database.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _prepare(self) -> None:
        self._database.execute("PRAGMA synchronous = NORMAL")  # no change waits for the disk
        if self._rows("PRAGMA user_version") == [(0,)]:
            self._database.execute("PRAGMA journal_mode = WAL")  # a reader, or a second writer, gets along
            self._database.executescript(TABLES)

    @property
    def batch(self) -> Batch | None:
        """The batch that the journal belongs to; None while it is new."""
        stored = self._read_about("batch")
        try:
            return None if stored is None else Batch.model_validate_json(stored)
        except ValidationError as error:
            raise _no_journal(self.path) from error

    def begin(self, batch: Batch) -> None:
        """Write which batch the journal belongs to."""
        self._write_about("batch", batch.model_dump_json())

    def entry(self, line: int) -> Entry | None:
        """Return what is known of a line; None where it was never sent."""
        found = self._rows(f"SELECT {COLUMNS} FROM lines WHERE line = ?", line)
        return next((Entry(*row) for row in found), None)

    def entries(self, status: LineStatus) -> Iterator[Entry]:
        """Iterate over the lines of a status, in order."""
        last = -1
        while rows := self._rows(
            f"SELECT {COLUMNS} FROM lines WHERE status = ? AND line > ? ORDER BY line LIMIT 500", status, last
        ):
            yield from (Entry(*row) for row in rows)
            last = int(rows[-1][0])

    def counts(self) -> Counts:
        """Count the lines by status."""
        counts = Counts()
        for row in self._rows("SELECT status, reason, COUNT(*) FROM lines GROUP BY status, reason"):
            counts.add(*row)
        return counts

    def sent(self, line: int, attempt: int, job_id: str) -> None:
        """Write that the line's job is about to be sent."""
        self.write(Entry(line, attempt, "sent", job_id, time.time(), None, None))

    def ended(self, line: int, job_id: str, state: JobState) -> None:
        """Write how the line's job ended."""
        before = self.entry(line)
        attempt, sent_at = (before.attempt, before.sent_at) if before else (0, None)
        if state.result is not None:
            self.write(Entry(line, attempt, "succeeded", job_id, sent_at, None, success_record(state.result)))
            return
        assert state.error is not None, "a final state has a result or an error"
        status: LineStatus = "cancelled" if state.status is JobStatus.CANCELLED else "failed"
        reason, record = type(state.error).__name__, failure_record(job_id, state.error)
        self.write(Entry(line, attempt, status, job_id, sent_at, reason, record))

    def write(self, entry: Entry) -> None:
        """Put the entry in place of the line's last one."""
        self._rows(WRITE, *astuple(entry))

    def retry_failed(self) -> int:
        """Have all that failed, or was cancelled, sent anew; returns how many."""
        with _typed_errors(self.path):
            done = self._database.execute(
                "UPDATE lines SET status = 'again', round = round + 1, reason = NULL, record = NULL, sent_at = NULL, "
                "change = change + (SELECT MAX(change) FROM lines) WHERE status IN ('failed', 'cancelled')"
            )
            return done.rowcount

    @property
    def stop_requested(self) -> bool:
        """Whether somebody requested the batch to stop."""
        return self._read_about("stop") == "1"

    def request_stop(self, wanted: bool) -> None:
        """Request the batch to stop, or take that back."""
        self._write_about("stop", "1" if wanted else "0")

    def claim(self) -> None:
        """Begin to write, as the only process that does. The batch's lock must be held."""

    def checkpoint(self, *, now: bool = False) -> None:
        """Bring what changed to where it is safe, if it is time, or `now`; a file needs none."""

    @property
    def last_change(self) -> int:
        """Number of the last change; 0 where there was none."""
        return int(self._rows("SELECT COALESCE(MAX(change), 0) FROM lines")[0][0])

    def changes(self, since: int, most: int) -> tuple[int, list[Entry]]:
        """Return the number of the last of the next changes after `since`, and their entries, `most` at a time."""
        statement = f"SELECT change, {COLUMNS} FROM lines WHERE change > ? ORDER BY change LIMIT ?"
        rows = self._rows(statement, since, most)
        return (int(rows[-1][0]) if rows else since), [Entry(*row[1:]) for row in rows]

    def _read_about(self, name: str) -> str | None:
        rows = self._rows("SELECT value FROM about WHERE name = ?", name)
        return str(rows[0][0]) if rows else None

    def _write_about(self, name: str, value: str) -> None:
        self._rows("INSERT OR REPLACE INTO about VALUES (?, ?)", name, value)

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with _typed_errors(self.path):
            return self._database.execute(statement, values).fetchall()


@contextmanager
def _typed_errors(path: Path) -> Generator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        remedy = "Check its folder, its rights and the free space"
        raise StorageRefused(f"the journal {str(path)!r} cannot be used: {error}", "journal", remedy) from error
    except sqlite3.DatabaseError as error:
        raise _no_journal(path) from error


def _no_journal(path: Path) -> JournalMismatch:
    return JournalMismatch(f"{str(path)!r} is no journal of a batch", "journal", "Name another file with --journal")


def require_batch(journal: Journal) -> Batch:
    """Return the batch that a journal belongs to. Raises InvalidJob where none was begun."""
    if (batch := journal.batch) is None:
        raise InvalidJob("no batch was begun with this journal", "journal", "Begin it with omnifleet batch run")
    return batch
