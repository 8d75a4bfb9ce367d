"""A picture of a recording before and after an edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from omnifleet_shared.atomic_file import write_atomically
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema.results import EditedSpan

from ..client import Client
from .options import AsJson
from .outputs.printer import Printer
from .session import exit_codes

if TYPE_CHECKING:
    from ..pictures.recordings import Recording, Span


def spectrogram(
    context: typer.Context,
    before: Annotated[Path, typer.Argument(help="The recording before.")],
    after: Annotated[Path, typer.Argument(help="The recording after.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to write, a .png.")],
    job: Annotated[
        str | None, typer.Option(metavar="JOB_ID", help="Mark the spans that this edit of words reports.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw the spectrograms of two recordings: omnifleet spectrogram call.wav edited.wav -o edit.png

    Spans that were edited are marked: those of the job, or else the part outside of which both are the same.
    """
    printer = Printer(as_json)
    with exit_codes(printer):
        _check(output)
        from ..pictures.recordings import read_recording
        from ..pictures.spectrogram import Panel, draw_spectrograms

        recordings = read_recording(before, "before"), read_recording(after, "after")
        spans = _spans(*recordings) if job is None else _spans_of(context.obj, job)
        panels = [
            Panel(path.name, one, marked) for path, one, marked in zip((before, after), recordings, spans, strict=True)
        ]
        with write_atomically(output) as file:
            file.write(draw_spectrograms(panels))
        printer.print(str(output), {"saved": str(output), "before": spans[0], "after": spans[1]})


def _check(output: Path) -> None:
    if output.suffix.lower() != ".png":
        raise InvalidJob(f"no picture is written as {output.suffix!r}", "output", "Use .png")
    if not output.parent.is_dir():
        raise InvalidJob(f"there is no folder {str(output.parent)!r}", "output", "Make it first")
    try:
        import PIL  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise InvalidJob("pictures need Pillow", "output", "Install omnifleet[picture]") from error


def _spans(before: Recording, after: Recording) -> tuple[Sequence[Span], Sequence[Span]]:
    from ..pictures.recordings import changed_spans

    found = changed_spans(before, after)
    return ((), ()) if found is None else ((found[0],), (found[1],))


def _spans_of(client: Client | None, job_id: str) -> tuple[Sequence[Span], Sequence[Span]]:
    with client or Client() as opened:
        edits: Sequence[EditedSpan] | None = opened.job(job_id).result().record.edits
    if edits is None:
        raise InvalidJob("the job edited no words", "job", "Leave --job out, or name an edit of speech")
    return [(one.source_start, one.source_end) for one in edits], [(one.start, one.end) for one in edits]
