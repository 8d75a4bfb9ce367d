"""Thousands of jobs from a file: validated, sent, waited for, and resumed after whatever ended the process.

JOBS is JSON Lines (.jsonl) or CSV (.csv, .tsv, with a header). A line has a task, such as edit.add, and what that call
takes: {"task": "edit.add", "audio": "street.wav", "desc": "rain"}. What lines have in common is given as options, with
{columns} put in: --task edit.add --desc "{sound}". Local media are looked for from the folder of JOBS.

The journal, JOBS.journal or --journal, has what became of every line. Run the same command again to resume: nothing
is run twice and nothing is left out.

Exit codes: 0 all done; 1 some failed; 2 the list, the journal or a setting will not do; 3 Redis or the storage does not
answer or refuses; 5 the batch was cancelled; 130 interrupted, to be resumed.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from omnifleet_shared.errors import InvalidJob, OmnifleetError, UnknownJob

from ..batch.concurrency import InFlightLimit
from ..batch.downloads import Downloads
from ..batch.job_list.job_list import FIELDS, JobList
from ..batch.job_list.template import Template
from ..batch.job_list.validate import MOST_SHOWN, validate_jobs
from ..batch.journal.journal import Journal, require_batch
from ..batch.journal.lock import BatchLock
from ..batch.journal.open_journal import is_running, journal_location, locked_journal, open_journal
from ..batch.manifest import Manifest, prepare_output
from ..batch.run import BatchRun, prepare
from ..batch.sender import JobSender
from ..client import Client
from .outputs.batch_printer import BatchPrinter
from .session import INTERRUPTED, JOB_FAILED, exit_codes

batch = typer.Typer(no_args_is_help=True, help=__doc__)
CANCELLED = 5

Jobs = Annotated[Path, typer.Argument(help="The job list.")]
JournalOption = Annotated[
    str | None, typer.Option("--journal", help="File, or URI in the storage; JOBS.journal by default.")
]
InFlight = Annotated[
    int | None, typer.Option(min=1, help="Jobs in the fleet at a time; by default twice what its workers hold.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print events as JSON, one a line; the last one is the result.")]


def _with_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command one more option for each field that lines may have, in place of its `**fields`."""
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    own = [one for one in parameters if one.kind is not one.VAR_KEYWORD]
    fields = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_field_option(name))
        for name in sorted(FIELDS - {"history"}, key=lambda name: (name != "task", name))
    ]
    setattr(command, "__signature__", inspect.Signature([*own, *fields]))  # noqa: B010
    return command


def _field_option(name: str) -> Any:
    flag = f"--{name.replace('_', '-')}"
    return Annotated[str | None, typer.Option(flag, metavar="TEMPLATE", help="Field of every line without one.")]


@batch.command()
@_with_fields
def run(
    context: typer.Context,
    jobs: Jobs,
    out: Annotated[str | None, typer.Option(help="Folder, or URI in the storage, that the manifest goes to.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check every line, and send nothing.")] = False,
    in_flight: InFlight = None,
    journal: JournalOption = None,
    ignore: Annotated[list[str] | None, typer.Option(help="A column that is no field; may be repeated.")] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Count lines that are no jobs as failed, and send the others.")
    ] = False,
    as_json: AsJson = False,
    **fields: str | None,
) -> None:
    """Run a job list, or resume it: omnifleet batch run clips.csv --task edit.add --desc "{sound}" --out night"""
    with _session(context.obj, as_json) as session:
        template = Template({name: text for name, text in fields.items() if text is not None})
        listed = JobList(jobs, template, ignore or ())
        if check:
            session.check(listed)
            return
        if out is None:
            raise InvalidJob("the manifest needs a folder", "out", "Give a folder with --out, or --check alone")
        with session.locked_journal(journal_location(jobs, journal)) as (opened, lock):
            prepare(listed, opened, session.sender, _absolute(out), skip_invalid=skip_invalid)
            session.run(listed, opened, lock, in_flight)


@batch.command("retry-failed")
def retry_failed(
    context: typer.Context,
    jobs: Jobs,
    in_flight: InFlight = None,
    journal: JournalOption = None,
    as_json: AsJson = False,
) -> None:
    """Do anew what failed or was cancelled, and resume the rest."""
    with (
        _session(context.obj, as_json) as session,
        session.locked_journal(journal_location(jobs, journal)) as (opened, lock),
    ):
        begun = require_batch(opened)
        listed = JobList(jobs, Template(begun.template), begun.ignored)
        prepare(listed, opened, session.sender, begun.out)
        opened.retry_failed()
        session.run(listed, opened, lock, in_flight)


@batch.command()
def status(context: typer.Context, jobs: Jobs, journal: JournalOption = None, as_json: AsJson = False) -> None:
    """Say how far a batch is, from its journal alone."""
    location = journal_location(jobs, journal)
    with _session(context.obj, as_json) as session, open_journal(location, session.sender) as opened:
        running = is_running(location, session.sender)
        session.printer.print_counts(require_batch(opened), opened.counts(), running)


@batch.command()
def cancel(context: typer.Context, jobs: Jobs, journal: JournalOption = None, as_json: AsJson = False) -> None:
    """Stop a batch: nothing more is sent, and what is in the fleet ends at its next step."""
    location = journal_location(jobs, journal)
    with _session(context.obj, as_json) as session, open_journal(location, session.sender) as opened:
        require_batch(opened)
        opened.request_stop(True)
        sent = sum(_cancel(session.sender, entry.job_id) for entry in opened.entries("sent"))
        session.printer.print(f"{sent} jobs will stop at their next step", {"event": "cancelled", "jobs": sent})


@batch.command()
def fetch(
    context: typer.Context,
    jobs: Jobs,
    out: Annotated[Path | None, typer.Option(help="Folder; by default that of the manifest.")] = None,
    journal: JournalOption = None,
    as_json: AsJson = False,
) -> None:
    """Download all results so far, named after their lines; what is there already is left as it is."""
    location = journal_location(jobs, journal)
    with _session(context.obj, as_json) as session, open_journal(location, session.sender) as opened:
        folder = str(out or require_batch(opened).out)
        if "://" in folder:
            raise InvalidJob("results are downloaded into a folder", "out", "Name one with --out")
        with session.interruptible():
            session.fetch(opened, folder)


class _Session:
    """The sender and printer of one command, and what several commands do."""

    def __init__(self, sender: JobSender, printer: BatchPrinter) -> None:
        self.sender = sender
        self.printer = printer

    def check(self, listed: JobList) -> None:
        """Validate the list, and print the outcome."""
        report = validate_jobs(listed, self.sender)
        self.printer.print_check(report.jobs, report.refusal() if report.bad else None)

    @contextmanager
    def locked_journal(self, location: str) -> Generator[tuple[Journal, BatchLock]]:
        """Open the batch's journal under its lock; an interruption of the block prints how to resume."""
        with self.interruptible(), locked_journal(location, self.sender) as held:
            yield held

    def run(self, listed: JobList, journal: Journal, lock: BatchLock, in_flight: int | None) -> None:
        """Run the batch, write its manifest, and end with its exit code."""
        journal.request_stop(False)
        limit = InFlightLimit(self.sender.transport.capacity, in_flight)
        with self.printer.progress():
            status = BatchRun(listed, journal, lock, self.sender, limit, self.printer).run()
        manifest = Manifest(listed, journal, self.sender.storage, self.sender.settings.url_lifetime)
        written = manifest.write(require_batch(journal).out)
        self.printer.print_end(status, _failures(journal), written)
        if journal.stop_requested:
            raise typer.Exit(CANCELLED)
        if status.failed or status.cancelled:
            raise typer.Exit(JOB_FAILED)

    def fetch(self, journal: Journal, folder: str) -> None:
        """Download the results, and end with the exit code."""
        prepare_output(folder, self.sender.storage)
        downloads = Downloads(journal, self.sender.storage, self.sender.settings.url_lifetime, Path(folder))
        report = downloads.fetch()
        self.printer.print_fetched(report, folder)
        if report.failed:
            raise typer.Exit(JOB_FAILED)

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """End the block, so that it can be resumed, on Ctrl-C and on the SIGTERM that evicts a pod."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        except KeyboardInterrupt:
            self.printer.print_stopped()
            raise typer.Exit(INTERRUPTED) from None
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _session(client: Client | None, as_json: bool) -> Generator[_Session]:
    printer = BatchPrinter(as_json)
    with exit_codes(printer), client or Client() as opened:
        yield _Session(opened.sender, printer)


def _absolute(out: str) -> str:
    """Make a folder's path absolute, for commands that run elsewhere; a URI stays as it is."""
    return out if "://" in out else str(Path(out).resolve())


def _failures(journal: Journal) -> Iterator[tuple[int, OmnifleetError]]:
    """Iterate over the first failures: line and error."""
    failed = chain(journal.entries("failed"), journal.entries("cancelled"))
    for entry in islice(failed, MOST_SHOWN):
        if (error := entry.state().error) is not None:
            yield entry.line, error


def _cancel(sender: JobSender, job_id: str) -> bool:
    try:
        sender.transport.cancel(job_id)
    except UnknownJob:  # it was never sent, and now never will be
        return False
    return True
