"""Dead letters, jobs whose workers were lost again and again: list them, send them again, drop them."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Annotated

import typer
from omnifleet_shared.broker.dead_letters import DeadLetter, DeadLetters
from omnifleet_shared.settings import FleetSettings, load_settings

from ..transport.celery import CeleryTransport
from .options import AsJson
from .outputs.printer import Printer
from .session import exit_codes

dead = typer.Typer(no_args_is_help=True, help=__doc__)

JobIdArgument = Annotated[str, typer.Argument(help="Id of the job.")]


@dead.command("list")
def list_letters(as_json: AsJson = False) -> None:
    """List the dead letters, the oldest first: id, when, task, worker, reason."""
    with _opened(as_json) as (letters, printer):
        kept = letters.all()
        if kept or as_json:
            printer.print("\n".join(map(_line, kept)), [letter.model_dump(mode="json") for letter in kept])


@dead.command()
def show(job_id: JobIdArgument, as_json: AsJson = False) -> None:
    """Show all that is known of one dead letter, its request included."""
    with _opened(as_json) as (letters, printer):
        letter = letters.read(job_id)
        printer.print(_page(letter), letter.model_dump(mode="json"))


@dead.command()
def replay(job_id: JobIdArgument, as_json: AsJson = False) -> None:
    """Send a job again as it was, under its own id, with its lost workers forgiven."""
    with _opened(as_json) as (letters, printer):
        letter = letters.read(job_id)
        with closing(CeleryTransport(load_settings(FleetSettings))) as transport:
            transport.replay(letter, letters.queue_of(job_id))
        printer.print(f"{job_id} is in the queue again", {"job_id": job_id, "replayed": True})


@dead.command()
def drop(job_id: JobIdArgument, as_json: AsJson = False) -> None:
    """Drop a dead letter; its job stays failed."""
    with _opened(as_json) as (letters, printer):
        letters.drop(job_id)
        printer.print(f"{job_id} is dropped", {"job_id": job_id, "dropped": True})


@contextmanager
def _opened(as_json: bool) -> Generator[tuple[DeadLetters, Printer]]:
    printer = Printer(as_json)
    with exit_codes(printer), closing(DeadLetters.connect(load_settings(FleetSettings))) as letters:
        yield letters, printer


def _line(letter: DeadLetter) -> str:
    return f"{letter.job.job_id}  {_when(letter)}  {_task(letter)}  {letter.worker}  {letter.reason}"


def _page(letter: DeadLetter) -> str:
    facts = {
        "job": letter.job.job_id,
        "task": _task(letter),
        "dead-lettered": _when(letter),
        "attempts": letter.attempts,
        "worker": letter.worker,
        "reason": letter.reason,
    }
    lines = [f"{name + ':':<15}{fact}" for name, fact in facts.items()]
    traceback = [letter.traceback.rstrip()] if letter.traceback else []
    request = json.dumps(letter.job.model_dump(mode="json"), indent=2, ensure_ascii=False)
    return "\n".join([*lines, *traceback, request])


def _when(letter: DeadLetter) -> str:
    return letter.dead_lettered_at.isoformat(timespec="seconds")


def _task(letter: DeadLetter) -> str:
    return f"{letter.job.namespace}.{letter.job.task.name}"
