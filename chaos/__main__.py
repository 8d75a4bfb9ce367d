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

from .experiment import GRACE, Experiment
from .faults import Kind
from .goal import Goal
from .report import show

LIMIT = 180
"""Seconds beyond the run's own after which it is aborted."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seconds: Annotated[float, typer.Option(min=0, help="Least time for which jobs are sent and faults made.")] = 120,
    jobs: Annotated[int, typer.Option(min=1, help="Least number of jobs.")] = 1,
    kills: Annotated[int, typer.Option(min=0, help="Least number of kills.")] = 1,
    at_most: Annotated[float, typer.Option(min=10, help="Seconds after which it ends early.")] = 1800,
    workers: Annotated[int, typer.Option(min=2, help="Worker processes.")] = 3,
    seed: Annotated[int, typer.Option(help="Decides what is asked, and in which order what goes wrong.")] = 1,
    deliveries: Annotated[int, typer.Option(min=1, help="Workers that a job may kill before it is put aside.")] = 8,
    faults: Annotated[str, typer.Option(help="Kinds of faults, separated by commas.")] = ",".join(Kind),
    logs: Annotated[Path | None, typer.Option(help="Empty folder for the logs, which stay there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Let all go wrong that can for a fleet at work, and check that no job is lost, wrong or done twice.

    It goes on until each least number was reached and every kind of fault happened.
    """
    goal = Goal(seconds=seconds, jobs=jobs, kills=kills, kinds=_kinds(faults))
    _forget_environment()
    _interrupt_after(round(at_most + GRACE) + LIMIT)
    folder = logs or Path(tempfile.mkdtemp(prefix="omnifleet-chaos-"))
    folder.mkdir(exist_ok=True)
    report = Experiment(goal=goal, at_most=at_most, workers=workers, seed=seed, deliveries=deliveries).run(folder)
    if as_json:
        Console(soft_wrap=True).print_json(json.dumps(asdict(report)))
    else:
        show(report, Console())
    if not report.passed:
        told = f"The workers' logs, and a file of each job that went wrong, are in {folder}"
        Console(stderr=True).print(told, soft_wrap=True)
        raise typer.Exit(1)
    if logs is None:
        shutil.rmtree(folder)


def _kinds(names: str) -> frozenset[Kind]:
    try:
        return frozenset(Kind(name.strip()) for name in names.split(",") if name.strip())
    except ValueError as error:
        raise typer.BadParameter(f"{error}; there are {', '.join(Kind)}") from error


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
