"""Thousands of jobs from a file: checked, sent, waited for, and gone on with after whatever ended the process.

JOBS is JSON Lines (.jsonl) or CSV (.csv, .tsv, with a header). A line has a task, such as edit.add, and what that call
takes: {"task": "edit.add", "audio": "street.wav", "desc": "rain"}. What lines have in common is given as options, with
{columns} put in: --task edit.add --desc "{sound}". Local media are looked for from the folder of JOBS.

The journal, JOBS.journal or --journal, has what became of every line. Run the same command again to go on: nothing is
run twice and nothing is left out.

Exit codes: 0 all done; 1 some failed; 2 the list, the journal or a setting will not do; 3 Redis or the storage does not
answer or refuses; 5 the batch was cancelled; 130 interrupted, to be gone on with.
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

from ..batch.concurrency import Window
from ..batch.downloads import Downloads
from ..batch.job_list.job_list import FIELDS, JobList
from ..batch.job_list.template import Template
from ..batch.job_list.validate import TOLD
from ..batch.job_list.validate import check as check_list
from ..batch.journal.journal import Journal, must_have_begun
from ..batch.journal.lock import Guard
from ..batch.journal.open_journal import is_running, journal_place, looking_at, working_on
from ..batch.manifest import Manifest, check_out
from ..batch.run import BatchRun, prepare
from ..batch.sender import JobSender
from ..client import Client
from .batch_output import BatchPrinter
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
    """The command with one more option for each field that lines may have, in place of its `**fields`."""
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
    """Carry out a job list, or go on: omnifleet batch run clips.csv --task edit.add --desc "{sound}" --out night"""
    with _session(context.obj, as_json) as session:
        template = Template({name: text for name, text in fields.items() if text is not None})
        listed = JobList(jobs, template, ignore or ())
        if check:
            session.check(listed)
            return
        if out is None:
            raise InvalidJob("the manifest needs a place", "out", "Give a folder with --out, or --check alone")
        with session.working_on(journal_place(jobs, journal)) as (opened, guard):
            prepare(listed, opened, session.fleet, _absolute(out), skip_invalid=skip_invalid)
            session.carry_out(listed, opened, guard, in_flight)


@batch.command("retry-failed")
def retry_failed(
    context: typer.Context,
    jobs: Jobs,
    in_flight: InFlight = None,
    journal: JournalOption = None,
    as_json: AsJson = False,
) -> None:
    """Do anew what failed or was cancelled, and go on with the rest."""
    with _session(context.obj, as_json) as session, session.working_on(journal_place(jobs, journal)) as (opened, guard):
        begun = must_have_begun(opened)
        listed = JobList(jobs, Template(begun.template), begun.ignored)
        prepare(listed, opened, session.fleet, begun.out)
        opened.retry_failed()
        session.carry_out(listed, opened, guard, in_flight)


@batch.command()
def status(context: typer.Context, jobs: Jobs, journal: JournalOption = None, as_json: AsJson = False) -> None:
    """Say how far a batch is, from its journal alone."""
    place = journal_place(jobs, journal)
    with _session(context.obj, as_json) as session, looking_at(place, session.fleet) as opened:
        running = is_running(place, session.fleet)
        session.printer.tell_tally(must_have_begun(opened), opened.tally(), running)


@batch.command()
def cancel(context: typer.Context, jobs: Jobs, journal: JournalOption = None, as_json: AsJson = False) -> None:
    """Stop a batch: nothing more is sent, and what is in the fleet ends at its next step."""
    place = journal_place(jobs, journal)
    with _session(context.obj, as_json) as session, looking_at(place, session.fleet) as opened:
        must_have_begun(opened)
        opened.want_stop(True)
        sent = sum(_cancel(session.fleet, entry.job_id) for entry in opened.entries("sent"))
        session.printer.tell(f"{sent} jobs will stop at their next step", {"event": "cancelled", "jobs": sent})


@batch.command()
def fetch(
    context: typer.Context,
    jobs: Jobs,
    out: Annotated[Path | None, typer.Option(help="Folder; by default that of the manifest.")] = None,
    journal: JournalOption = None,
    as_json: AsJson = False,
) -> None:
    """Download all results so far, named after their lines; what is there already is left as it is."""
    place = journal_place(jobs, journal)
    with _session(context.obj, as_json) as session, looking_at(place, session.fleet) as opened:
        folder = str(out or must_have_begun(opened).out)
        if "://" in folder:
            raise InvalidJob("results are downloaded into a folder", "out", "Name one with --out")
        with session.interruptible():
            session.fetch(opened, folder)


class _Session:
    """What the commands have in common."""

    def __init__(self, fleet: JobSender, printer: BatchPrinter) -> None:
        self.fleet = fleet
        self.printer = printer

    def check(self, listed: JobList) -> None:
        """Check the list, and say so."""
        findings = check_list(listed, self.fleet)
        self.printer.tell_check(findings.jobs, findings.refusal() if findings.bad else None)

    @contextmanager
    def working_on(self, place: str) -> Generator[tuple[Journal, Guard]]:
        """The batch's journal under its guard; interrupting the block says how to go on."""
        with self.interruptible(), working_on(place, self.fleet) as held:
            yield held

    def carry_out(self, listed: JobList, journal: Journal, guard: Guard, in_flight: int | None) -> None:
        """Carry the batch out, write its manifest, and end with its exit code."""
        journal.want_stop(False)
        window = Window(self.fleet.transport.capacity, in_flight)
        with self.printer.progress():
            standing = BatchRun(listed, journal, guard, self.fleet, window, self.printer).carry_out()
        manifest = Manifest(listed, journal, self.fleet.storage, self.fleet.settings.url_lifetime)
        written = manifest.write(must_have_begun(journal).out)
        self.printer.tell_end(standing, _failures(journal), written)
        if journal.stop_wanted:
            raise typer.Exit(CANCELLED)
        if standing.failed or standing.cancelled:
            raise typer.Exit(JOB_FAILED)

    def fetch(self, journal: Journal, folder: str) -> None:
        """Download the results, and end with the exit code."""
        check_out(folder, self.fleet.storage)
        downloads = Downloads(journal, self.fleet.storage, self.fleet.settings.url_lifetime, Path(folder))
        fetched = downloads.fetch()
        self.printer.tell_fetched(fetched, folder)
        if fetched.failed:
            raise typer.Exit(JOB_FAILED)

    @contextmanager
    def interruptible(self) -> Generator[None]:
        """Ctrl-C, and the SIGTERM of a pod that is evicted, end the block where it can be gone on with."""
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        except KeyboardInterrupt:
            self.printer.tell_stopped()
            raise typer.Exit(INTERRUPTED) from None
        finally:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _session(client: Client | None, as_json: bool) -> Generator[_Session]:
    printer = BatchPrinter(as_json)
    with exit_codes(printer), client or Client() as opened:
        yield _Session(opened.sender, printer)


def _absolute(out: str) -> str:
    """The folder wherever the next command is run from; a URI is as it is."""
    return out if "://" in out else str(Path(out).resolve())


def _failures(journal: Journal) -> Iterator[tuple[int, OmnifleetError]]:
    """The first ones."""
    failed = chain(journal.entries("failed"), journal.entries("cancelled"))
    for entry in islice(failed, TOLD):
        if (error := entry.state().error) is not None:
            yield entry.line, error


def _cancel(fleet: JobSender, job_id: str) -> bool:
    try:
        fleet.transport.cancel(job_id)
    except UnknownJob:  # it was never sent, and now never will be
        return False
    return True
