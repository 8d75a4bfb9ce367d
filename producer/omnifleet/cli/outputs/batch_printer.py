"""What `omnifleet batch` prints: a bar on a terminal, lines elsewhere, events as JSON for programs."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from omnifleet_shared.errors import InvalidJobList, OmnifleetError
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from ...batch.downloads import DownloadReport
from ...batch.journal.journal import Batch, Counts
from ...batch.manifest import error_to_json
from ...batch.progress import BatchStatus
from .printer import Printer

LINE_INTERVAL = 10.0
"""Seconds between lines about the batch's progress, and between such events in JSON."""


class BatchPrinter(Printer):
    """Prints for people, or events for programs. It is the `BatchDisplay` of a run."""

    def __init__(self, as_json: bool) -> None:
        super().__init__(as_json)
        self._bars: tuple[Progress, TaskID] | None = None
        self._next_line = time.monotonic() + LINE_INTERVAL
        self._waits_for: str | None = None

    @contextmanager
    def progress(self) -> Generator[None]:
        """Show a progress bar for the block, on a terminal."""
        if self._as_json or not self._err.is_terminal:
            yield
            return
        columns = (SpinnerColumn(), BarColumn(bar_width=30), TextColumn("{task.description}"))
        with Progress(*columns, console=self._err, transient=True) as bars:
            self._bars = (bars, bars.add_task("", total=None))
            yield

    def show(self, status: BatchStatus) -> None:
        """See `BatchDisplay`."""
        if self._bars is not None:
            bars, task = self._bars
            bars.update(task, total=status.jobs, completed=status.ended, description=in_words(status))
        elif time.monotonic() >= self._next_line or status.waits_for != self._waits_for:
            self._next_line, self._waits_for = time.monotonic() + LINE_INTERVAL, status.waits_for
            if self._as_json:
                self.print("", {"event": "progress", **status.record()})
            else:
                self._note(in_words(status))

    def show_failure(self, line: int, error: OmnifleetError) -> None:
        """See `BatchDisplay`. People see how many of each kind, and the first ones at the end."""
        if self._as_json:
            self.print("", {"event": "failed", "line": line, "error": error_to_json(error)})

    def print_check(self, jobs: int, refusal: InvalidJobList | None) -> None:
        """Print that all lines of a list are valid; raise the refusal where they are not."""
        if refusal is not None:
            raise refusal
        self.print(f"{_jobs(jobs)}, all of them valid", {"event": "checked", "jobs": jobs})

    def print_error(self, error: OmnifleetError) -> None:
        """See `Printer`; the invalid lines of a list come first."""
        if isinstance(error, InvalidJobList) and not self._as_json:
            for line in error.details.get("lines", ()):
                self._note(f"line {line['line']}: {line['type']}: {line['error']}")
        super().print_error(error)

    def print_end(self, status: BatchStatus, failures: Iterable[tuple[int, OmnifleetError]], manifest: str) -> None:
        """Print what became of the batch, the first failures, and where the manifest is."""
        shown = list(failures)
        if not self._as_json:
            for line, error in shown:
                self._note(_failure(line, error))
        record = {
            "failures": [{"line": line, "error": error_to_json(error)} for line, error in shown],
            "manifest": manifest,
        }
        self.print(f"{_counts(status)}\n{manifest}", {"event": "end", **status.record(), **record})

    def print_counts(self, batch: Batch, counts: Counts, running: bool) -> None:
        """Print how far a batch is."""
        left = batch.count - counts.ended
        state = "runs" if running else "is done" if not left else "does not run"
        words = (
            f"{batch.jobs} {state}: {_counts(counts)}, {counts.sent:,} in the fleet, {left - counts.sent:,} to be sent"
        )
        record = {"jobs": batch.count, "succeeded": counts.succeeded, "failed": counts.failed}
        record |= {"cancelled": counts.cancelled, "sent": counts.sent}
        facts: dict[str, Any] = {"running": running, "reasons": counts.reasons, "batch": batch.model_dump(mode="json")}
        self.print(words, {**record, **facts})

    def print_fetched(self, report: DownloadReport, folder: str) -> None:
        """Print what was downloaded."""
        failures = [{"line": line, "error": error_to_json(error)} for line, error in report.failed]
        if not self._as_json:
            for line, error in report.failed:
                self._note(_failure(line, error))
        words = f"{report.saved:,} files saved in {folder}, {report.existing:,} were there, {len(failures):,} failed"
        self.print(words, {"saved": report.saved, "there": report.existing, "failures": failures, "folder": folder})

    def print_stopped(self) -> None:
        """Print that an interrupted batch can be resumed."""
        if self._as_json:
            self.print("", {"event": "interrupted", "resumable": True})
            return
        self._note("Interrupted. What is in the fleet goes on there, and the journal has all that is known.")
        self._note("Run the same command again to go on: nothing is run twice, nothing is left out.")


def in_words(status: BatchStatus) -> str:
    """Describe how far a batch is, in one line."""
    parts = [_counts(status), f"{status.in_flight:,} in the fleet", f"{status.per_second:.3g} jobs/s"]
    if status.seconds_left is not None:
        parts.append(f"{timedelta(seconds=round(status.seconds_left))} left")
    if status.clips_per_gpu_hour is not None:
        parts.append(f"{status.clips_per_gpu_hour:,.0f} clips per GPU-hour")
    if status.waits_for is not None:
        parts.append(f"waits: {status.waits_for}")
    return ", ".join(parts)


def _counts(counts: BatchStatus | Counts) -> str:
    reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.reasons.items()))
    ended = (
        f"{counts.succeeded:,} of {_jobs(counts.jobs)}" if isinstance(counts, BatchStatus) else f"{counts.succeeded:,}"
    )
    not_done = counts.failed + counts.cancelled
    return f"{ended} done, {not_done:,} failed{f' ({reasons})' if reasons else ''}"


def _jobs(count: int) -> str:
    return f"{count:,} job{'s' * (count != 1)}"


def _failure(line: int, error: OmnifleetError) -> str:
    return f"line {line}: {type(error).__name__}: {error}"
