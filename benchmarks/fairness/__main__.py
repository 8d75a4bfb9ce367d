"""One greedy tenant and nine small ones: how long the small ones' jobs wait behind hundreds of others.

The greedy one sends all of its jobs at once; each small one sends a job a second meanwhile. Twice on the same workers:
first all of them as jobs without a tenant, which are done first come, first served; then each as its own tenant's. A
job takes its worker's device a fixed time: it is the waiting that is measured, not a model.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import typer
from omnifleet import Client, FleetSettings, JobHandle, TextResult
from omnifleet.batch import understand
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import cpu, versions
from processes import redis_server
from support import PYTHONPATH
from support.processes import worker
from support.scripted_worker import STEP_SECONDS

SMALL = 9
"""Small tenants."""
WORKERS, SLOTS = 2, 4
STEPS = 4
"""Of each job."""
TIMEOUT = 900.0
"""Seconds after which a job is given up."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Waits:
    """Of jobs, from submission to the start of their only attempt, in seconds."""

    jobs: int
    p50: float
    p99: float


@dataclass(frozen=True)
class Row:
    """One way to choose the next job."""

    small: Waits
    greedy: Waits
    seconds: float
    """From the first job to the last outcome."""


@dataclass(frozen=True)
class Report:
    """What was measured, and where."""

    date: str
    cpu: str
    versions: dict[str, str]
    job_seconds: float
    """That a job is on the device at least."""
    workers: int
    slots: int
    without: Row
    fair: Row
    ratio: float
    """Of the small tenants' p99 wait with fairness to that without."""


def measure(greedy: int, each: int) -> Report:
    """Send so many jobs of the greedy tenant, and so many of each small one, one a second, twice."""
    with _fleet() as omni:
        _send(omni, "warm").result(TIMEOUT)  # connections, caches
        without, fair = (_run(omni, greedy, each, fair=fair) for fair in (False, True))
    about = (datetime.now(UTC).date().isoformat(), cpu(), versions(), STEPS * STEP_SECONDS, WORKERS, SLOTS)
    return Report(*about, without, fair, fair.small.p99 / without.small.p99)


@contextmanager
def _fleet() -> Iterator[Client]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        settings = FleetSettings(redis_url=stack.enter_context(redis_server(folder)), storage=f"file://{folder}/media")
        environment = {
            "OMNIFLEET_REDIS_URL": settings.redis_url,
            "OMNIFLEET_STORAGE": settings.storage,
            "OMNIFLEET_CONCURRENCY": str(SLOTS),
            "PYTHONPATH": PYTHONPATH,
        }
        scripted = "support.scripted_worker"
        running = [
            stack.enter_context(worker(environment, folder / f"{number}.log", scripted, f"--hostname=w{number}@%h"))
            for number in range(WORKERS)
        ]
        for one in running:
            one.wait_until_ready()
        yield stack.enter_context(Client(settings))


def _run(omni: Client, greedy: int, each: int, *, fair: bool) -> Row:
    clients = [omni.of_tenant(f"small-{number}") if fair else omni for number in range(SMALL)]
    start = time.monotonic()
    with ThreadPoolExecutor(SMALL + 1) as threads:
        many = threads.submit(_send_many, omni.of_tenant("greedy") if fair else omni, greedy)
        small = [threads.submit(_send_by_the_clock, client, each) for client in clients]
        waits = [wait for future in small for wait in future.result()]
        return Row(_waits(waits), _waits(many.result()), time.monotonic() - start)


def _send_many(omni: Client, jobs: int) -> list[float]:
    calls = (understand(question="greedy", max_new_tokens=STEPS, priority="interactive") for _ in range(jobs))
    return [outcome.result.record.timings.queued for outcome in omni.batch(calls, in_flight=jobs)]


def _send_by_the_clock(omni: Client, jobs: int) -> list[float]:
    sent = []
    for _ in range(jobs):
        time.sleep(1)
        sent.append(_send(omni, "small"))
    return [job.result(TIMEOUT).record.timings.queued for job in sent]


def _send(omni: Client, what: str) -> JobHandle[TextResult]:
    return omni.understand(question=what, max_new_tokens=STEPS)


def _waits(seconds: list[float]) -> Waits:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return Waits(len(seconds), cuts[49], cuts[98])


def show(report: Report) -> None:
    """Print the report for people."""
    table = Table("waits in s", *("small, p50", "small, p99", "greedy, p50", "greedy, p99", "all done after"))
    for name, row in (("first come, first served", report.without), ("by tenant", report.fair)):
        numbers = (row.small.p50, row.small.p99, row.greedy.p50, row.greedy.p99, row.seconds)
        table.add_row(name, *(f"{number:.2f}" for number in numbers))
    console = Console()
    console.print(f"{report.date}, {report.cpu}: {report.workers} workers with {report.slots} slots")
    console.print(f"{report.without.greedy.jobs} jobs of one tenant, {report.without.small.jobs} of {SMALL} others")
    console.print(table)
    console.print(f"p99 of the small ones, by tenant to without: {report.ratio:.3f}")


@app.command()
def main(
    greedy: Annotated[int, typer.Option(help="Jobs of the greedy tenant.")] = 600,
    each: Annotated[int, typer.Option(help="Jobs of each small tenant, one a second.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure how long small tenants wait beside a greedy one."""
    report = measure(greedy, each)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
