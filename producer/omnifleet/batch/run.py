"""A batch from its job list to its last outcome; what it does is in the journal before and after each step."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Protocol

from omnifleet_shared.errors import JobCancelled, JournalMismatch, OmnifleetError

from .concurrency import Window
from .dispatcher import Flight, Item, Landing, Trouble
from .job_list.job_list import JobList, Line
from .job_list.validate import check
from .journal.journal import Batch, Journal, must_have_begun
from .journal.lock import Guard
from .manifest import check_out
from .progress import Pace, Standing
from .sender import JobSender

TICK = 0.5
"""Seconds between two reports, and between two looks for a wish to stop."""


class Display(Protocol):
    """Shows how a batch gets on."""

    def show(self, standing: Standing) -> None:
        """Called about every half second."""

    def failed(self, line: int, error: OmnifleetError) -> None:
        """A line's job came to no result."""


def prepare(jobs: JobList, journal: Journal, fleet: JobSender, out: str, *, skip_invalid: bool = False) -> Batch:
    """The batch that the journal is of; a new journal's after every line was checked.

    Raises:
        InvalidJobList: lines that are no jobs, unless those are to be skipped.
        JournalMismatch: the journal is of a list that was another one.
        ForeignURI, StorageRefused, StorageUnavailable: `out`, or media in the storage.
    """
    check_out(out, fleet.storage)
    fingerprint, begun = jobs.fingerprint(), journal.batch
    if begun is not None:
        _must_match(begun, fingerprint)
        batch = begun.model_copy(update={"out": out})
    else:
        findings = check(jobs, fleet)
        if findings.bad and not skip_invalid:
            raise findings.refusal()
        batch = _new_batch(jobs, fingerprint, findings.jobs, out)
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


def _must_match(begun: Batch, fingerprint: str) -> None:
    if begun.fingerprint != fingerprint:
        problem = f"the job list, or what its lines have in common, is not that of the batch begun with {begun.jobs!r}"
        remedy = "Bring the list back as it was to go on, or name a new --journal to begin anew"
        raise JournalMismatch(problem, "jobs", remedy)


class BatchRun:
    """Carries out what a batch has left to do. The batch's guard must be held.

    Args:
        jobs: its list.
        journal: as `prepare` left it.
        guard: its guard.
        fleet: that does the jobs.
        window: most jobs in the fleet at a time.
        display: shown how it gets on.
    """

    def __init__(
        self, jobs: JobList, journal: Journal, guard: Guard, fleet: JobSender, window: Window, display: Display
    ) -> None:
        self._batch = must_have_begun(journal)
        self._jobs = jobs
        self._journal = journal
        self._guard = guard
        self._display = display
        self._pace = Pace(self._batch.count, journal.tally(), window)
        self._flight = Flight(fleet, self._items(), window, notice=self._notice, meanwhile=self._meanwhile)
        self._next_look = 0.0

    def carry_out(self) -> Standing:
        """Return when every job has come to its end, or when somebody wanted the batch to stop.

        Raises:
            BatchRunning: the guard was lost to another process.
            Everything that `Flight` and `Journal` raise. The journal then has all that is known, and is gone on with.
        """
        with closing(iter(self._flight)) as landings:
            for landing in landings:
                self._ended(landing)
                self._meanwhile()
        self._journal.checkpoint(now=True)
        standing = self._standing()
        self._display.show(standing)
        return standing

    def _items(self) -> Iterator[Item]:
        for line in self._jobs:
            entry = self._journal.entry(line.number)
            if entry is None or entry.status == "again":
                yield self._new(line, 0 if entry is None else entry.round)
            elif entry.status == "sent":
                yield Item(line.number, line.request, entry.job_id, entry.sent_at)

    def _new(self, line: Line, again: int) -> Item:
        job_id = self._batch.job_id(line.number, again)
        # Before it is sent: whoever goes on with the journal looks for the job under this id first.
        self._journal.sent(line.number, again, job_id)
        return Item(line.number, line.request, job_id)

    def _ended(self, landing: Landing) -> None:
        line, state = landing.item.number, landing.state
        self._journal.ended(line, landing.job_id, state)
        self._pace.add(state.status.value, type(state.error).__name__ if state.error else None)
        if isinstance(state.error, JobCancelled):
            self._next_look = 0.0  # by whom? The batch may be about to be stopped, and is not to send more
        if state.error is not None:
            self._display.failed(line, state.error)

    def _meanwhile(self) -> None:
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + TICK
        self._guard.check()
        self._journal.checkpoint()
        if self._journal.stop_wanted:
            self._flight.stop()
        self._display.show(self._standing())

    def _standing(self) -> Standing:
        self._pace.in_flight = self._flight.in_fleet
        return self._pace.standing()

    def _notice(self, trouble: Trouble) -> None:
        self._pace.waits_for = None if trouble is None else str(trouble)
