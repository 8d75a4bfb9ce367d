"""A batch from its job list to its last outcome; what it does is in the journal before and after each step."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Protocol

from omnifleet_shared.errors import JobCancelled, JournalMismatch, OmnifleetError

from .concurrency import InFlightLimit
from .dispatcher import Completion, Dispatcher, WorkItem
from .job_list.job_list import JobLine, JobList
from .job_list.validate import validate_jobs
from .journal.journal import RETRY, Batch, Journal, require_batch
from .journal.lock import BatchLock
from .manifest import prepare_output
from .progress import BatchStatus, RateMeter
from .sender import JobSender

TICK = 0.5
"""Seconds between two reports, and between two looks for a request to stop."""


class BatchDisplay(Protocol):
    """Shows how far a batch is."""

    def show(self, status: BatchStatus) -> None:
        """Show it; called about every half second."""

    def show_failure(self, line: int, error: OmnifleetError) -> None:
        """Show that a line's job came to no result."""


def prepare(jobs: JobList, journal: Journal, sender: JobSender, out: str, *, skip_invalid: bool = False) -> Batch:
    """Return the batch of the journal; a new journal's after every line was checked.

    Raises:
        InvalidJobList: lines that are no jobs, unless those are to be skipped.
        JournalMismatch: the journal is of a list that was another one.
        ForeignURI, StorageRefused, StorageUnavailable: `out`, or media in the storage.
    """
    prepare_output(out, sender.storage)
    fingerprint, begun = jobs.fingerprint(), journal.batch
    if begun is not None:
        _check_fingerprint(begun, fingerprint)
        batch = begun.model_copy(update={"out": out})
    else:
        report = validate_jobs(jobs, sender)
        if report.bad and not skip_invalid:
            raise report.refusal()
        batch = _new_batch(jobs, fingerprint, report.jobs, out)
    journal.begin(batch)
    return batch


def _new_batch(jobs: JobList, fingerprint: str, count: int, out: str) -> Batch:
    return Batch(
        batch_id=uuid.uuid4().hex[:12],
        jobs=str(jobs.path),
        fingerprint=fingerprint,
        template=jobs.template.fields,
        ignored=jobs.ignored,
        count=count,
        out=out,
    )


def _check_fingerprint(begun: Batch, fingerprint: str) -> None:
    if begun.fingerprint != fingerprint:
        problem = f"the job list, or what its lines have in common, is not that of the batch begun with {begun.jobs!r}"
        remedy = "Bring the list back as it was to go on, or name a new --journal to begin anew"
        raise JournalMismatch(problem, "jobs", remedy)


class BatchRun:
    """Does what a batch has left to do. The batch's lock must be held.

    Args:
        jobs: its list.
        journal: as `prepare` left it.
        lock: its lock.
        sender: sends the jobs.
        limit: most jobs in the fleet at a time.
        display: shows how far it is.
    """

    def __init__(
        self,
        jobs: JobList,
        journal: Journal,
        lock: BatchLock,
        sender: JobSender,
        limit: InFlightLimit,
        display: BatchDisplay,
    ) -> None:
        self._batch = require_batch(journal)
        self._jobs = jobs
        self._journal = journal
        self._lock = lock
        self._display = display
        self._rate_meter = RateMeter(self._batch.count, journal.counts(), limit)
        self._dispatcher = Dispatcher(sender, self._items(), limit, on_wait=self._on_wait, on_tick=self._on_tick)
        self._next_tick = 0.0

    def run(self) -> BatchStatus:
        """Return when every job has ended, or when somebody requested the batch to stop.

        Raises:
            BatchRunning: the lock was lost to another process.
            Everything that `Dispatcher` and `Journal` raise. The journal then has all that is known, and the batch can
                be resumed.
        """
        with closing(iter(self._dispatcher)) as completions:
            for completion in completions:
                self._record(completion)
                self._on_tick()
        self._journal.checkpoint(now=True)
        status = self._status()
        self._display.show(status)
        return status

    def _items(self) -> Iterator[WorkItem]:
        for line in self._jobs:
            entry = self._journal.entry(line.number)
            if entry is None or entry.status == RETRY:
                yield self._new_item(line, 0 if entry is None else entry.attempt)
            elif entry.status == "sent":
                yield WorkItem(line.number, line.request, entry.job_id, entry.sent_at)

    def _new_item(self, line: JobLine, attempt: int) -> WorkItem:
        job_id = self._batch.job_id(line.number, attempt)
        # Before it is sent: whoever resumes with the journal looks for the job under this id first.
        self._journal.sent(line.number, attempt, job_id)
        return WorkItem(line.number, line.request, job_id)

    def _record(self, completion: Completion) -> None:
        line, state = completion.item.number, completion.state
        self._journal.ended(line, completion.job_id, state)
        self._rate_meter.add(state.status.value, type(state.error).__name__ if state.error else None)
        if isinstance(state.error, JobCancelled):
            self._next_tick = 0.0  # by whom? The batch may be about to be stopped, and is not to send more
        if state.error is not None:
            self._display.show_failure(line, state.error)

    def _on_tick(self) -> None:
        if time.monotonic() < self._next_tick:
            return
        self._next_tick = time.monotonic() + TICK
        self._lock.check()
        self._journal.checkpoint()
        if self._journal.stop_requested:
            self._dispatcher.stop()
        self._display.show(self._status())

    def _status(self) -> BatchStatus:
        self._rate_meter.in_flight = self._dispatcher.in_fleet
        return self._rate_meter.status()

    def _on_wait(self, error: OmnifleetError | None) -> None:
        self._rate_meter.waits_for = None if error is None else str(error)
