"""API keys of the gateway: make, list and revoke them; weights and quotas of their tenants."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from omnifleet_shared.broker.tenants.tenant_limits import TenantLimit, TenantLimits
from omnifleet_shared.settings import FleetSettings, load_settings

from ..gateway.access.api_key import DEFAULT_RATE, ApiKey, make_key
from ..gateway.access.key_store import KeyStore
from .options import AsJson
from .outputs.printer import Printer
from .session import exit_codes

keys = typer.Typer(no_args_is_help=True, help=__doc__)


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


@keys.command()
def limit(
    tenant: Annotated[str, typer.Argument(help="Whose limits they are.")],
    weight: Annotated[float | None, typer.Option(help="Share of GPU time beside other tenants; 1 by default.")] = None,
    gpu_seconds: Annotated[float | None, typer.Option(help="GPU-seconds a day (UTC); no limit by default.")] = None,
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Take the limit of GPU-seconds away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Set a tenant's weight and its GPU-seconds a day, or show them where nothing is to be set."""
    printer = Printer(as_json)
    with exit_codes(printer), closing(TenantLimits.connect(load_settings(FleetSettings))) as limits:
        before = limits.read(tenant)
        seconds = gpu_seconds if gpu_seconds is not None else None if unlimited else before.gpu_seconds
        after = TenantLimit(tenant, before.weight if weight is None else weight, seconds)
        if after != before:
            limits.write(after)
        printer.print(_limit_line(after), asdict(after))


def _limit_line(limit: TenantLimit) -> str:
    quota = "no limit" if limit.gpu_seconds is None else f"{limit.gpu_seconds:g} GPU-seconds a day"
    return f"{limit.tenant}  weight {limit.weight:g}  {quota}"


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
