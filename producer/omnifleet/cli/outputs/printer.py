"""What the command line prints: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.schema.callback import CallbackDelivery
from omnifleet_shared.schema.results import EditPlan, JobStatus, Progress, Route
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from ...results.results import JobResult
from ...transport.unattended import Absence


class JobDisplay(Protocol):
    """Shows how far a job is while it is waited for."""

    def show(self, status: str, progress: Progress) -> None:
        """Show the job's status and how far it is."""


class Printer:
    """Prints for people, or as JSON for programs."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._out = Console()
        self._err = Console(stderr=True)

    def print_sent(self, job_id: str) -> None:
        """Print the id of a job that nobody waits for here."""
        self.print(job_id, {"job_id": job_id})

    def print_result(self, result: JobResult, saved: Path | None) -> None:
        """Print the text, or where the audio is, and what the result lacks."""
        record = result.record.model_dump(mode="json")
        if result.audio is not None:
            record["artifact"]["url"] = result.audio.url
        if result.video is not None:
            record["video"]["url"] = result.video.url
        shown = result.text if result.audio is None else result.audio.url
        if result.plan is not None:
            shown = _plan_in_words(result.plan)
        if result.segments is not None:
            shown = "\n".join(f"{one.start:9.2f} {one.end:9.2f}  {one.text}" for one in result.segments)
        if not self._as_json:
            for warning in result.warnings:
                self._err.print(f"Warning: {warning}", markup=False, highlight=False, soft_wrap=True)
        self.print(str(saved) if saved else str(shown), record | ({"saved": str(saved)} if saved else {}))

    def print_status(
        self,
        job_id: str,
        status: JobStatus,
        progress: Progress,
        callback: CallbackDelivery | None,
        route: Route | None,
    ) -> None:
        """Print a job's status and progress, how far its callback is, and which model was chosen for it and why."""
        words = _in_words(status.value, progress)
        record = {"job_id": job_id, "status": status, "progress": progress.model_dump(mode="json")}
        if route is not None:
            words += f", by {route.model} ({route.licence or 'licence unknown'}): {route.reason}"
            record["route"] = route.model_dump(mode="json")
        if callback is not None:
            words += f", callback {callback.status}" + (f": {callback.error}" if callback.error else "")
            record["callback"] = callback.model_dump(mode="json")
        self.print(words, record)

    def print_cancel(self, job_id: str, status: JobStatus) -> None:
        """Print that a job will stop, or that it had ended before."""
        words = f"{job_id}: {status.value}" if status.is_final else f"{job_id} will stop at its next step"
        self.print(words, {"job_id": job_id, "status": status})

    def print_interrupted(self, job_id: str | None) -> None:
        """Print how to come back to a job that goes on."""
        if self._as_json:
            self.print("", {"job_id": job_id, "interrupted": True})
        elif job_id is None:
            self._note("Interrupted before a job was sent.")
        else:
            self._note(f"Interrupted; the job goes on. Its result: omnifleet result {job_id}")
            self._note(f"To stop it: omnifleet cancel {job_id}")

    def print_no_worker(self, absence: Absence) -> None:
        """Print that a job waits which no worker will take as things are."""
        self._note(f"{absence.note[0].upper()}{absence.note[1:]}.")

    def print_error(self, error: OmnifleetError) -> None:
        """Print what went wrong and what to do about it."""
        wire = {"problem": error.problem, "field": error.field, "remedy": error.remedy, "details": error.details}
        if self._as_json:
            self.print("", {"error": {"type": type(error).__name__, **wire}})
        else:
            self._note(f"{type(error).__name__}: {error}")

    @contextmanager
    def display(self, job_id: str) -> Generator[JobDisplay]:
        """Show a progress bar on a terminal; elsewhere a line for each change of status."""
        if not self._err.is_terminal:
            yield _Lines(self._err, job_id)
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"))
        with Bars(*columns, console=self._err, transient=True) as bars:
            yield _Bar(bars, bars.add_task("queued", total=None, words=job_id))

    def print(self, words: str, record: object) -> None:
        """Print words for people, or the record for programs, on stdout."""
        # Not wrapped, not highlighted, no markup: other programs read this.
        self._out.out(json.dumps(record, ensure_ascii=False) if self._as_json else words, highlight=False)

    def _note(self, words: str) -> None:
        self._err.out(words, highlight=False)


class _Bar:
    def __init__(self, bars: Bars, task: TaskID) -> None:
        self._bars = bars
        self._task = task

    def show(self, status: str, progress: Progress) -> None:
        words = _in_words("", progress).strip()
        self._bars.update(
            self._task, description=status, completed=progress.step, total=progress.steps or None, words=words
        )


class _Lines:
    def __init__(self, console: Console, job_id: str) -> None:
        self._console = console
        self._job_id = job_id
        self._last = ""

    def show(self, status: str, progress: Progress) -> None:
        if status != self._last:
            self._console.out(f"{self._job_id}: {_in_words(status, progress)}", highlight=False)
        self._last = status


def _plan_in_words(plan: EditPlan) -> str:
    """A line for each word with its seconds; what would go after `-`, and what would be said there after `+`."""
    changes = {word: "-" for edit in plan.edits for word in range(edit.first, edit.last)}
    said = {edit.last: f"+ {'':17}{edit.new}" for edit in plan.edits if edit.new}
    lines: list[str] = []
    for number, word in enumerate(plan.words):
        lines += [said[number]] if number in said else []
        lines.append(f"{changes.get(number, ' ')} {word.start:7.2f} {word.end:7.2f}  {word.text}")
    return "\n".join([*lines, *([said[len(plan.words)]] if len(plan.words) in said else [])])


def _in_words(status: str, progress: Progress) -> str:
    steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
    eta = f", {progress.eta:.0f} s left" if progress.eta is not None else ""
    return f"{status}{steps}{eta}"
