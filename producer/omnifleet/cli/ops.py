"""Commands for whoever runs the fleet. What they need is imported when they are called."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

import typer
from omnifleet_shared.settings import FleetSettings, load_settings

from ..client import Client
from ..routing.route import KnownModel, model_record
from .options import AsJson
from .outputs.printer import Printer
from .session import exit_codes

MARKS = {"ok": "✓", "note": "!", "fault": "✗"}


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    for command in (models, top, doctor, exporter, flower, gateway):
        app.command()(command)


def models(
    context: typer.Context,
    as_json: AsJson = False,
) -> None:
    """List the models that jobs may be sent to: whether a worker is ready, the licence, and what they can do."""
    printer = Printer(as_json)
    with exit_codes(printer), context.obj or Client() as client:
        known = client.models()
    printer.print("\n".join(map(_line, known)), [model_record(one) for one in known])


def _line(model: KnownModel) -> str:
    record = model_record(model)
    state = "ready" if model.live else "no worker"
    use = "commercial use" if record["commercial_use"] else "no commercial use"
    return f"{model.name}  {state}  {record['licence']} ({use})  {', '.join(record['tasks'])}"


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two frames.")] = 2.0,
) -> None:
    """Watch the fleet: workers, GPUs, batches, the queue by priority, the pace and what failed."""
    from ..ops.top import show, show_once

    with exit_codes(Printer(as_json=False)), suppress(KeyboardInterrupt):
        settings = load_settings(FleetSettings)
        if once:
            show_once(settings)
        else:
            show(settings, interval)


def doctor(
    with_job: Annotated[bool, typer.Option("--job", help="Send a tiny job too, and wait for its answer.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Look for what is wrong with the fleet, and say what to do: Redis, storage, workers, clocks, versions.

    Exit code 1 where there is a fault.
    """
    from ..ops.doctor import examine

    printer = Printer(as_json)
    with exit_codes(printer):
        findings = list(examine(load_settings(FleetSettings), with_job=with_job))
    lines = [
        f"{MARKS[one.level]} {one.check}: {one.message}" + (f"\n    → {one.fix}" if one.fix else "") for one in findings
    ]
    printer.print("\n".join(lines), [one.to_json() for one in findings])
    if any(one.level == "fault" for one in findings):
        raise typer.Exit(1)


def exporter(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where /metrics and /livez are.")] = 8081,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
) -> None:
    """Show Prometheus all queues of the fleet by priority, the workers and Redis."""
    from ..ops.exporter import serve

    with exit_codes(Printer(as_json=False)):
        serve(load_settings(FleetSettings), host, port)


def flower(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to open it.")] = 5555,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
) -> None:
    """Open Flower on the fleet; FLOWER_BASIC_AUTH=name:password says who may look."""
    from ..ops.flower import run_flower

    with exit_codes(Printer(as_json=False)):
        run_flower(load_settings(FleetSettings), host, port)


def gateway(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where its callers reach it.")] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Let everybody in; for trials on this machine alone.")
    ] = False,
) -> None:
    """Answer HTTP: /v1/jobs, OpenAI's /v1/audio, for holders of a key (omnifleet keys add)."""
    from ..gateway.server import run_gateway
    from ..gateway.settings import GatewaySettings

    with exit_codes(Printer(as_json=False)):
        run_gateway(load_settings(GatewaySettings), host, port, with_keys=not without_keys)
