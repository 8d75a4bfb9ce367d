"""Commands for whoever runs the fleet. What they need is imported when they are called."""

from __future__ import annotations

from typing import Annotated

import typer
from omnifleet_shared.settings import FleetSettings, load_settings

from .cli_output import Printer
from .cli_session import exit_codes


def add_commands(app: typer.Typer) -> None:
    """Add them to the command line."""
    for command in (exporter,):
        app.command()(command)


def exporter(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where /metrics and /livez are.")] = 8081,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
) -> None:
    """Show Prometheus the queue by priority, the workers and Redis."""
    from .exporter import serve

    with exit_codes(Printer(as_json=False)):
        serve(load_settings(FleetSettings), host, port)
