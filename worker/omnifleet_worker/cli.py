"""`omnifleet-worker`: run a worker, write a small checkpoint to try it with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.settings import load_settings
from rich.console import Console

from .settings import WorkerSettings

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def run(
    checkpoint: Annotated[Path | None, typer.Option(help="Checkpoint folder [env: OMNIFLEET_CHECKPOINT].")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Requests that share an engine step.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Jobs held at once.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
    loglevel: Annotated[str, typer.Option(help="Lowest level that is logged.")] = "INFO",
    name: Annotated[str, typer.Option(help="Worker's name; %h is the host.")] = "omnifleet@%h",
) -> None:
    """Take jobs until stopped. Everything else is set by OMNIFLEET_* in the environment."""
    given = {"checkpoint": checkpoint, "max_batch": max_batch, "concurrency": concurrency, "log_format": log_format}
    settings = load_settings(WorkerSettings, **{key: value for key, value in given.items() if value is not None})
    from .celery import create_worker_app  # imports torch: not for --help

    options = ["--hostname", name, "--loglevel", loglevel, "--without-gossip", "--without-mingle"]
    create_worker_app(settings).worker_main(["worker", *options])


@app.command("tiny-checkpoint")
def tiny_checkpoint(
    out: Annotated[Path, typer.Argument(help="Folder to write to.")],
    seed: Annotated[int, typer.Option(help="Seed of the random weights.")] = 0,
) -> None:
    """Write a small checkpoint with random weights (about 90 MB): it makes noise, and everything runs on a CPU."""
    from .models.tiny import write_tiny_checkpoint

    write_tiny_checkpoint(out, seed=seed)
    Console(stderr=True).print(f"Wrote a tiny checkpoint with random weights to {out}")


def main() -> None:
    """Entry point; typed errors become one line and exit code 2."""
    try:
        app()
    except OmnifleetError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/red] {error}", highlight=False)
        sys.exit(2)
