"""`make chaos`: random faults for some minutes, and whether every job had exactly one right outcome."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .experiment import Experiment
from .report import show

LIMIT = 180
"""Seconds beyond the run's own after which it is aborted."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seconds: Annotated[float, typer.Option(min=10, help="How long jobs are sent; a fifth of it is quiet.")] = 300,
    workers: Annotated[int, typer.Option(min=2, help="Worker processes.")] = 3,
    seed: Annotated[int, typer.Option(help="Decides what is asked, and what goes wrong when.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Kill, stop and cut off a fleet at work, and check that no job is lost, wrong or done twice."""
    _forget_environment()
    _interrupt_after(round(seconds) + LIMIT)
    folder = Path(tempfile.mkdtemp(prefix="omnifleet-chaos-"))
    report = Experiment(seconds=seconds, workers=workers, seed=seed).run(folder)
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(asdict(report)))
    else:
        show(report, Console())
    if not report.passed:
        Console(stderr=True).print(f"The workers' logs are in {folder}")
        raise typer.Exit(1)
    shutil.rmtree(folder)


def _forget_environment() -> None:
    """Drop settings from the environment: the run neither sees nor touches the fleet and storage of whoever runs it."""
    for name in [name for name in os.environ if name.startswith(("OMNIFLEET_", "AWS_"))]:
        del os.environ[name]


def _interrupt_after(limit: int) -> None:
    """End as on Ctrl-C, with all processes, at SIGTERM or after so many seconds."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(limit)


if __name__ == "__main__":
    app()
