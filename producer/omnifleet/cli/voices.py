"""Named voices: recordings that are stored once, and named as --ref voice:NAME."""

from __future__ import annotations

from typing import Annotated

import typer
from omnifleet_shared.schema.voice import Voice

from .options import AsJson
from .session import open_session

voices = typer.Typer(no_args_is_help=True, help=__doc__)

Name = Annotated[str, typer.Argument(help="Name of the voice: a-z, 0-9, - and _.")]


@voices.command()
def add(
    context: typer.Context,
    name: Name,
    audio: Annotated[str, typer.Argument(help="A recording of it; its last 6 seconds are used.")],
    consent: Annotated[str, typer.Option(help="Who agreed to what, and where that is written down.")],
    text: Annotated[str | None, typer.Option(help="What is said in it; by default the model transcribes it.")] = None,
    added_by: Annotated[str | None, typer.Option(help="Who adds it; by default you, on this machine.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a voice: omnifleet voices add anna anna.wav --consent "contract 12" """
    with open_session(context.obj, as_json) as session:
        voice = session.client.voices.add(name, audio, consent=consent, text=text, added_by=added_by)
        session.print(_line(voice), voice.model_dump(mode="json"))


@voices.command("list")
def list_voices(context: typer.Context, as_json: AsJson = False) -> None:
    """List all voices: name, when and by whom it was added, consent."""
    with open_session(context.obj, as_json) as session:
        found = session.client.voices.list()
        session.print("\n".join(map(_line, found)), [voice.model_dump(mode="json") for voice in found])


@voices.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one voice."""
    with open_session(context.obj, as_json) as session:
        voice = session.client.voices.get(name)
        session.print(_page(voice), voice.model_dump(mode="json"))


@voices.command()
def remove(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete a voice, its recording and all that was made of it, for good."""
    with open_session(context.obj, as_json) as session:
        session.client.voices.remove(name)
        session.print(f"{name} is removed", {"name": name, "removed": True})


def _line(voice: Voice) -> str:
    return f"{voice.name}  {voice.added_at.isoformat(timespec='seconds')}  {voice.added_by}  {voice.consent}"


def _page(voice: Voice) -> str:
    return "\n".join(f"{name + ':':<10} {value}" for name, value in voice.model_dump(mode="json").items())
