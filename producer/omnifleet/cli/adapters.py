"""Named adapters: what the model was taught besides its weights, stored once and named as --adapter NAME."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from omnifleet_shared.schema.adapter import Adapter

from .options import AsJson
from .session import open_session

adapters = typer.Typer(no_args_is_help=True, help=__doc__)

Name = Annotated[str, typer.Argument(help="Name of the adapter: a-z, 0-9, - and _.")]


@adapters.command()
def add(
    context: typer.Context,
    name: Name,
    folder: Annotated[Path, typer.Argument(help="As omnifleet-worker train, or peft, wrote it.")],
    licence: Annotated[str, typer.Option(help="Of the adapter; the model's own holds besides.")],
    commercial_use: Annotated[bool, typer.Option("--commercial-use", help="It allows commercial use.")] = False,
    added_by: Annotated[str | None, typer.Option(help="Who adds it; by default you, on this machine.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add an adapter: omnifleet adapters add rain-lora run/adapter --licence "CC BY-NC 4.0" """
    with open_session(context.obj, as_json) as session:
        add = session.client.adapters.add
        adapter = add(name, folder, licence=licence, commercial_use=commercial_use, added_by=added_by)
        session.print(_line(adapter), adapter.model_dump(mode="json"))


@adapters.command("list")
def list_adapters(context: typer.Context, as_json: AsJson = False) -> None:
    """List all adapters: name with hash, rank, what they were trained on, when and by whom they were added, licence."""
    with open_session(context.obj, as_json) as session:
        found = session.client.adapters.list()
        session.print("\n".join(map(_line, found)), [adapter.model_dump(mode="json") for adapter in found])


@adapters.command()
def show(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show one adapter."""
    with open_session(context.obj, as_json) as session:
        adapter = session.client.adapters.get(name)
        session.print(_page(adapter), adapter.model_dump(mode="json"))


@adapters.command()
def remove(context: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Delete an adapter, and its files where no other name has them."""
    with open_session(context.obj, as_json) as session:
        session.client.adapters.remove(name)
        session.print(f"{name} is removed", {"name": name, "removed": True})


def _line(adapter: Adapter) -> str:
    about = f"rank {adapter.rank}, {adapter.base} {adapter.revision}"
    added = f"{adapter.added_at.isoformat(timespec='seconds')}  {adapter.added_by}"
    return f"{adapter.reference}  {about}  {added}  {adapter.licence}"


def _page(adapter: Adapter) -> str:
    return "\n".join(f"{name + ':':<15} {value}" for name, value in adapter.model_dump(mode="json").items())
