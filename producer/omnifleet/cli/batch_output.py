"""What `omnifleet batch` prints: a bar on a terminal, lines elsewhere, events as JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from omnifleet_shared.errors import InvalidJobList, OmnifleetError
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from ..batch.downloads import Fetched
from ..batch.journal.journal import Batch, Tally
from ..batch.manifest import wire
from ..batch.progress import Standing
from .output import Printer

LINE_EVERY = 10.0
"""Seconds between lines that say how the batch gets on; between events in JSON too."""


class BatchPrinter(Printer):
    """Prints for people, or events for programs. It is the `Display` of a run."""

    def __init__(self, as_json: bool) -> None:
        super().__init__(as_json)
        self._bars: tuple[Progress, TaskID] | None = None
        self._next_line = time.monotonic() + LINE_EVERY
        self._waits_for: str | None = None

    @contextmanager
    def progress(self) -> Generator[None]:
        """Room for a bar, on a terminal."""
        if self._as_json or not self._err.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"))
        with Progress(*columns, console=self._err, transient=True) as bars:
            self._bars = (bars, bars.add_task("", total=None))
            yield

    def show(self, standing: Standing) -> None:
        """See `Display`."""
        if self._bars is not None:
            bars, task = self._bars
            bars.update(task, total=standing.jobs, completed=standing.ended, description=in_words(standing))
        elif time.monotonic() >= self._next_line or standing.waits_for != self._waits_for:
            self._next_line, self._waits_for = time.monotonic() + LINE_EVERY, standing.waits_for
            if self._as_json:
                self.tell("", {"event": "progress", **standing.record()})
            else:
                self._note(in_words(standing))

    def failed(self, line: int, error: OmnifleetError) -> None:
        """See `Display`. People see how many of each kind, and the first ones at the end."""
        if self._as_json:
            self.tell("", {"event": "failed", "line": line, "error": wire(error)})

    def tell_check(self, jobs: int, refusal: InvalidJobList | None) -> None:
        """What the check of a list found."""
        if refusal is not None:
            raise refusal
        self.tell(f"{_jobs(jobs)}, all of them sound", {"event": "checked", "jobs": jobs})

    def tell_error(self, error: OmnifleetError) -> None:
        """See `Printer`; the bad lines of a list first."""
        if isinstance(error, InvalidJobList) and not self._as_json:
            for line in error.details.get("lines", ()):
                self._note(f"line {line['line']}: {line['type']}: {line['error']}")
        super().tell_error(error)

    def tell_end(self, standing: Standing, failures: Iterable[tuple[int, OmnifleetError]], manifest: str) -> None:
        """What became of the batch, the first failures, and where the manifest is."""
        told = list(failures)
        if not self._as_json:
            for line, error in told:
                self._note(_failure(line, error))
        record = {"failures": [{"line": line, "error": wire(error)} for line, error in told], "manifest": manifest}
        self.tell(f"{_counts(standing)}\n{manifest}", {"event": "end", **standing.record(), **record})

    def tell_tally(self, batch: Batch, tally: Tally, running: bool) -> None:
        """Where a batch is."""
        left = batch.count - tally.ended
        state = "runs" if running else "is done" if not left else "does not run"
        words = f"{batch.jobs} {state}: {_counts(tally)}, {tally.sent:,} in the fleet, {left - tally.sent:,} to be sent"
        record = {"jobs": batch.count, "succeeded": tally.succeeded, "failed": tally.failed}
        record |= {"cancelled": tally.cancelled, "sent": tally.sent}
        facts: dict[str, Any] = {"running": running, "reasons": tally.reasons, "batch": batch.model_dump(mode="json")}
        self.tell(words, {**record, **facts})

    def tell_fetched(self, fetched: Fetched, folder: str) -> None:
        """What was downloaded."""
        failures = [{"line": line, "error": wire(error)} for line, error in fetched.failed]
        if not self._as_json:
            for line, error in fetched.failed:
                self._note(_failure(line, error))
        words = f"{fetched.saved:,} files saved in {folder}, {fetched.there:,} were there, {len(failures):,} failed"
        self.tell(words, {"saved": fetched.saved, "there": fetched.there, "failures": failures, "folder": folder})

    def tell_stopped(self) -> None:
        """That an interrupted batch can be gone on with."""
        if self._as_json:
            self.tell("", {"event": "interrupted", "resumable": True})
            return
        self._note("Interrupted. What is in the fleet goes on there, and the journal has all that is known.")
        self._note("Run the same command again to go on: nothing is run twice, nothing is left out.")


def in_words(standing: Standing) -> str:
    """How a batch stands, in one line."""
    parts = [_counts(standing), f"{standing.in_flight:,} in the fleet", f"{standing.per_second:.3g} jobs/s"]
    if standing.seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(standing.seconds_left))} left")
    if standing.clips_per_gpu_hour is not None:
        parts.append(f"{standing.clips_per_gpu_hour:,.0f} clips per GPU-hour")
    if standing.waits_for is not None:
        parts.append(f"waits: {standing.waits_for}")
    return ", ".join(parts)


def _counts(counts: Standing | Tally) -> str:
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.reasons.items()))
    ended = f"{counts.succeeded:,} of {_jobs(counts.jobs)}" if isinstance(counts, Standing) else f"{counts.succeeded:,}"
    not_done = counts.failed + counts.cancelled
    return f"{ended} done, {not_done:,} failed{f' ({reasons})' if reasons else ''}"


def _jobs(count: int) -> str:
    return f"{count:,} job{'s' * (count != 1)}"


def _failure(line: int, error: OmnifleetError) -> str:
    return f"line {line}: {type(error).__name__}: {error}"
