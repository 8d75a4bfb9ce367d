"""What starting costs beside a bare `import torch`: CPU seconds, seconds and modules of fresh processes, by turns.

CPU seconds are what counts: they are the same on a busy machine.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import cpu, versions

BARE = "import torch"
PLAN = """
import sys
from omnifleet_worker.installation import collector_paused
with collector_paused():
    import omnifleet_worker.celery
from omnifleet_worker.model_loader import load_pipeline, plan_checkpoint
from omnifleet_worker.settings import WorkerSettings
settings = WorkerSettings(checkpoint=sys.argv[1], device="cpu")
plan_checkpoint(settings)
"""
PROGRAMS = {
    BARE: BARE,
    "omnifleet's command line": "import omnifleet.cli",
    "worker to its memory plan": PLAN,
    "worker to a loaded checkpoint, tiny": f"{PLAN}load_pipeline(settings)",
}
COUNT = "\nimport sys; print(len(sys.modules))"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Row:
    """Of one program, medians."""

    cpu_seconds: float
    seconds: float
    modules: int


@dataclass(frozen=True)
class Report:
    """What was measured, and where."""

    date: str
    cpu: str
    versions: dict[str, str]
    rows: dict[str, Row]

    def ratio(self, program: str) -> float:
        """CPU seconds in units of a bare `import torch`."""
        return self.rows[program].cpu_seconds / self.rows[BARE].cpu_seconds


def run(program: str, checkpoint: Path) -> Row:
    """Run a program from start to end in a process of its own."""
    used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-c", program + COUNT, str(checkpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return Row(cpu_seconds, seconds, int(done.stdout.split()[-1]))


def measure(runs: int) -> Report:
    """Run all programs by turns, after once each: files are read from disk and compiled once only."""
    with tempfile.TemporaryDirectory(prefix="omnifleet-benchmark-") as name:
        write_tiny_checkpoint(checkpoint := Path(name) / "checkpoint")
        turns = [{title: run(one, checkpoint) for title, one in PROGRAMS.items()} for _ in range(runs + 1)][1:]
    rows = {title: _middle([turn[title] for turn in turns]) for title in PROGRAMS}
    return Report(date=datetime.now(UTC).isoformat(timespec="minutes"), cpu=cpu(), versions=versions(), rows=rows)


def _middle(rows: list[Row]) -> Row:
    cpu_seconds, seconds = median(row.cpu_seconds for row in rows), median(row.seconds for row in rows)
    return Row(round(cpu_seconds, 2), round(seconds, 2), rows[0].modules)


def show(report: Report) -> None:
    """Print one table."""
    table = Table("", "CPU s", f"x {BARE}", "s", "modules", title="From start to end of a process")
    for title, row in report.rows.items():
        times = f"{row.cpu_seconds:.2f}", f"{report.ratio(title):.2f}", f"{row.seconds:.2f}"
        table.add_row(title, *times, str(row.modules))
    console = Console()
    console.print(table)
    console.print(f"{report.date}; {report.cpu}; {report.versions}", highlight=False)


@app.command()
def main(
    runs: Annotated[int, typer.Option(min=1, help="Of each program, after the first.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure what starting costs."""
    report = measure(runs)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
