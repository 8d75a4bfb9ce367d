"""One invocation of the command line: its client, waiting with progress, and errors as exit codes."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

import typer
from omnifleet_shared.errors import (
    AdapterInvalid,
    BatchRunning,
    BrokerRefused,
    BrokerUnavailable,
    ForeignURI,
    InvalidJob,
    InvalidSetting,
    JobCancelled,
    JournalMismatch,
    KeyRefused,
    MediaError,
    NoModelFor,
    OmnifleetError,
    QueueFull,
    QuotaExceeded,
    ResultTimeout,
    StorageRefused,
    StorageUnavailable,
    UnknownJob,
)
from omnifleet_shared.schema.results import JobStatus, Progress

from ..client import Client
from ..handle import JobHandle
from ..results.results import JobResult
from ..results.subtitles import SUBTITLE_FORMATS
from ..transport.unattended import Absence
from .outputs.output_file import OutputFile
from .outputs.printer import JobDisplay, Printer
from .outputs.standard_output import StandardOutput

EXIT_CODES: dict[type[OmnifleetError], int] = {
    InvalidJob: 2,
    BrokerRefused: 3,
    InvalidSetting: 2,
    AdapterInvalid: 2,
    MediaError: 2,
    ForeignURI: 2,
    UnknownJob: 2,
    BatchRunning: 2,
    JournalMismatch: 2,
    KeyRefused: 2,
    BrokerUnavailable: 3,
    StorageUnavailable: 3,
    StorageRefused: 3,
    QueueFull: 3,
    NoModelFor: 3,
    QuotaExceeded: 3,
    ResultTimeout: 4,
    JobCancelled: 5,
}
JOB_FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130

POLL_INTERVAL = 0.5
"""Seconds between reads of a job's progress."""
PATIENCE = 5.0
"""Seconds between looks whether a worker lives, while a job waits, until it was said that none does."""


class Session:
    """One command's client and printer, and the job that it is about."""

    def __init__(self, client: Client, printer: Printer) -> None:
        self.client = client
        self._printer = printer
        self._job_id: str | None = None

    def check_output(
        self,
        output: OutputFile | StandardOutput | None,
        *,
        no_wait: bool = False,
        dry_run: bool = False,
        timed: bool = True,
    ) -> None:
        """Refuse early what could not be written after the job. Raises InvalidJob."""
        if output is None:
            return
        if dry_run:
            raise InvalidJob("a dry run makes no file", "output", "Leave out -o, or --dry-run")
        if no_wait:
            raise InvalidJob("nothing is written without waiting", "output", "Use omnifleet result JOB_ID -o later")
        suffix = output.path.suffix.lower().removeprefix(".") if isinstance(output, OutputFile) else ""
        if not timed and suffix in SUBTITLE_FORMATS:
            raise InvalidJob("subtitles need times", "output", "Add --timestamps word, or segment")
        output.check()

    def finish(
        self,
        job: JobHandle[JobResult],
        output: OutputFile | StandardOutput | None,
        timeout: float | None,
        *,
        no_wait: bool = False,
    ) -> None:
        """Wait for the job and print its result, or write it as it comes, or print the job's id alone."""
        self._job_id = job.id
        if no_wait:
            self._printer.print_sent(job.id)
            self._note_absence(job)
            return
        if isinstance(output, StandardOutput):
            output.write(job.stream(timeout=timeout))
            return
        result = self._wait(job, timeout)
        self._printer.print_result(result, output.write(result) if output else None)

    def print_status(self, job: JobHandle[JobResult]) -> None:
        """Print the job's status and progress, and how far its callback is."""
        self._printer.print_status(job.id, job.status(), job.progress(), job.callback(), job.route())

    def cancel(self, job: JobHandle[JobResult]) -> None:
        """Ask for the job to be stopped."""
        job.cancel()
        self._printer.print_cancel(job.id, job.status())

    def print(self, words: str, record: object) -> None:
        """Print words for people, or the record for programs."""
        self._printer.print(words, record)

    def print_interrupted(self) -> None:
        """Say how to come back to the job."""
        self._printer.print_interrupted(self._job_id)

    def _wait(self, job: JobHandle[JobResult], timeout: float | None) -> JobResult:
        deadline = None if timeout is None else time.monotonic() + timeout
        next_look: float = time.monotonic() + PATIENCE
        # Once before it waits: an unknown id, or a Redis that is not there at all, is reported at once.
        job.status()
        with self._printer.display(job.id) as display:
            while True:
                left = POLL_INTERVAL if deadline is None else min(POLL_INTERVAL, max(deadline - time.monotonic(), 0))
                try:
                    return job.result(left)
                except (ResultTimeout, BrokerUnavailable):
                    if (deadline is not None and time.monotonic() >= deadline) or _show(job, display).is_final:
                        raise
                if time.monotonic() >= next_look:
                    next_look = math.inf if self._note_absence(job) else time.monotonic() + PATIENCE

    def _note_absence(self, job: JobHandle[JobResult]) -> bool:
        """Say so where the job waits and no worker lives."""
        with suppress(BrokerUnavailable):
            if job.is_unattended():
                self._printer.print_no_worker(Absence(job.route()))
                return True
        return False


def _show(job: JobHandle[JobResult], display: JobDisplay) -> JobStatus:
    try:
        status, progress = job.status(), job.progress()
    except BrokerUnavailable:
        display.show("waiting for Redis", Progress())
        return JobStatus.QUEUED
    display.show(status.value, progress)
    return status


@contextmanager
def open_session(client: Client | None, as_json: bool) -> Generator[Session]:
    """Open a session whose errors are printed and end the process with their exit code.

    Args:
        client: used instead of one from the environment; tests pass a fake as the command's `obj`.
        as_json: print records and errors as JSON.
    """
    printer = Printer(as_json)
    with exit_codes(printer), client or Client() as opened:
        session = Session(opened, printer)
        try:
            yield session
        except KeyboardInterrupt:
            session.print_interrupted()
            raise typer.Exit(INTERRUPTED) from None


@contextmanager
def exit_codes(printer: Printer) -> Generator[None]:
    """Print the errors of the block, and end the process with their exit codes."""
    try:
        yield
    except OmnifleetError as error:
        printer.print_error(error)
        raise typer.Exit(_exit_code(error)) from error
    except OSError as error:
        printer.print_error(InvalidJob(f"the file cannot be written: {error}", "output", "Check its folder and rights"))
        raise typer.Exit(BAD_INPUT) from error


def _exit_code(error: OmnifleetError) -> int:
    return next((code for cls, code in EXIT_CODES.items() if isinstance(error, cls)), JOB_FAILED)
