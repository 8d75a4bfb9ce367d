"""API keys of the gateway: make, list and revoke them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Annotated

import typer
from omnifleet_shared.settings import FleetSettings, load_settings

from ..gateway.access.api_key import DEFAULT_RATE, ApiKey, make_key
from ..gateway.access.key_store import KeyStore
from .output import Printer
from .session import exit_codes

keys = typer.Typer(no_args_is_help=True, help=__doc__)

AsJson = Annotated[bool, typer.Option("--json", help="Print records as JSON, errors too.")]


@keys.command()
def add(
    tenant: Annotated[str, typer.Argument(help="Whose key it is; jobs are seen by all keys of a tenant.")],
    rate: Annotated[float, typer.Option(help="Requests a minute.")] = DEFAULT_RATE,
    quota: Annotated[int | None, typer.Option(help="Jobs a day (UTC); no limit by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it. It is shown this once: only its hash is kept."""
    with _opened(as_json) as (store, printer):
        key, text = make_key(tenant, rate, quota)
        store.add(key)
        printer.print(text, {"key": text, **_record(key)})


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys, the oldest first: id, tenant, rate, quota, when it was made."""
    with _opened(as_json) as (store, printer):
        kept = store.all()
        if kept or as_json:
            printer.print("\n".join(map(_line, kept)), [*map(_record, kept)])


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="Id of the key: the part of it after of_.")], as_json: AsJson = False
) -> None:
    """Revoke a key: the next request with it is refused. Its jobs go on."""
    with _opened(as_json) as (store, printer):
        store.revoke(key_id)
        printer.print(f"{key_id} is revoked", {"id": key_id, "revoked": True})


@contextmanager
def _opened(as_json: bool) -> Generator[tuple[KeyStore, Printer]]:
    printer = Printer(as_json)
    with exit_codes(printer), closing(KeyStore.connect(load_settings(FleetSettings))) as store:
        yield store, printer


def _record(key: ApiKey) -> dict[str, object]:
    return key.model_dump(mode="json", exclude={"sha256"})


def _line(key: ApiKey) -> str:
    quota = "no quota" if key.quota is None else f"{key.quota} jobs a day"
    return f"{key.id}  {key.tenant}  {key.rate:g} requests a minute  {quota}  {key.created_at:%Y-%m-%dT%H:%M:%SZ}"
