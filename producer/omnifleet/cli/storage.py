"""The fleet's storage: delete what nothing needs any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from omnifleet_shared.settings import FleetSettings, load_settings

from .outputs.printer import Printer
from .session import exit_codes

if TYPE_CHECKING:
    from ..ops.storage_gc import Verdict

storage = typer.Typer(no_args_is_help=True, help=__doc__)

WORDS = {
    "job": "job {} needs it",
    "result": "the result of job {}",
    "undecided": "job {} is not known to have ended",
    "journal": "a journal names it",
    "young": "too young",
    "used": "used again meanwhile",
}
"""Why an object was kept."""
COUNTED = {
    "job": "that jobs need",
    "result": "that results name",
    "undecided": "of jobs not known to have ended",
    "journal": "that journals name",
    "young": "too young",
    "used": "used again meanwhile",
}


class Kind(StrEnum):
    """What a fleet stores, by the first folder of its keys."""

    INPUTS = "inputs"
    RESULTS = "results"
    PARTS = "parts"


@storage.callback()
def group() -> None:
    """The fleet's storage: delete what nothing needs any more."""  # typer would else make `gc` the group itself


@storage.command()
def gc(
    older_than: Annotated[
        float, typer.Option(metavar="HOURS", help="Keep what was stored or used in the last so many hours; 2 or more.")
    ] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, and show every object.")] = False,
    only: Annotated[list[Kind] | None, typer.Option(help="Look at these alone; may be repeated.")] = None,
    journal: Annotated[
        list[str] | None, typer.Option(help="Keep the results that a batch's journal names; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print records as JSON, one a line, errors too.")] = False,
) -> None:
    """Delete inputs, results and parts that no unfinished job, no dead letter and no kept result names.

    Nothing is deleted where Redis does not answer, or holds something that cannot be read.
    """
    from ..ops.storage_gc import collect_garbage

    printer = Printer(as_json)
    with exit_codes(printer):
        prefixes = [f"{kind}/" for kind in only or Kind]
        settings = load_settings(FleetSettings)
        _report(
            printer, collect_garbage(settings, older_than * 3600, prefixes, journal or (), dry_run=dry_run), dry_run
        )


def _report(printer: Printer, verdicts: Iterable[Verdict], dry_run: bool) -> None:
    deleted, size, kept = 0, 0, Counter[str]()
    for one in verdicts:
        if one.kept is None:
            deleted, size = deleted + 1, size + one.bytes
        else:
            kept[one.kept] += 1
        if dry_run:
            printer.print(_line(one), one.to_json())
    verb = "would be deleted" if dry_run else "deleted"
    reasons = "".join(f", {count} {COUNTED[reason]}" for reason, count in sorted(kept.items()))
    words = f"{deleted} objects ({_size(size)}) {verb}, {kept.total()} kept{reasons}"
    printer.print(words, {"deleted": deleted, "bytes": size, "kept": dict(kept), "dry_run": dry_run})


def _line(one: Verdict) -> str:
    verdict, why = ("delete", "") if one.kept is None else ("keep", f"  {WORDS[one.kept].format(one.job_id)}")
    return f"{verdict:<6}  {_size(one.bytes):>9}  {one.age / 3600:>7.1f} h  {one.uri}{why}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
