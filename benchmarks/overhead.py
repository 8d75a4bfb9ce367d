"""What omnifleet adds to Celery: jobs a second and latency of an engine that does nothing, beside a bare no-op task.

Both run in the same minute on the same Redis, turn by turn, so that a busy machine is busy for both.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import typer
from bare_worker import create_bare_app
from machine import cpu, versions
from omnifleet import Client
from processes import redis_server, workers
from rich.console import Console
from rich.table import Table
from systems import BareCelery, Fleet, System

ROUNDS = 5
CONCURRENCY = 16
"""Threads of either worker."""
SENDERS = 4
"""Threads that send and then wait."""
LATENCY_SHARE = 0.15
"""Jobs that are sent one at a time, for each job that is sent in the crowd."""
LIMIT = 60.0
"""Seconds after which the measurement is given up, the workers' start not included."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Meter:
    """What was measured of one system so far."""

    system: System
    until: float
    """Monotonic time at which the measurement is given up."""
    latencies: list[float] = field(default_factory=list)
    """Milliseconds."""
    rates: list[float] = field(default_factory=list)
    """Jobs a second."""

    def take_latencies(self, jobs: int) -> None:
        """Send jobs one at a time."""
        for _ in range(jobs):
            start = time.perf_counter()
            self._wait(self.system.submit())
            self.latencies.append((time.perf_counter() - start) * 1000)

    def take_rate(self, jobs: int, senders: ThreadPoolExecutor) -> None:
        """Send jobs from all senders and wait for the last one."""
        share = max(1, jobs // SENDERS)
        start = time.perf_counter()
        for sent in [senders.submit(self._send_and_wait, share) for _ in range(SENDERS)]:
            sent.result()
        self.rates.append(share * SENDERS / (time.perf_counter() - start))

    def warm_up(self, senders: ThreadPoolExecutor) -> None:
        """Open all connections, and forget how long that took."""
        self.take_latencies(5)
        self.take_rate(10 * SENDERS, senders)
        self.latencies, self.rates = [], []

    def figures(self) -> dict[str, float]:
        """The figures, by name and unit."""
        cuts = quantiles(self.latencies, n=100, method="inclusive")
        figures = {"jobs_per_second": median(self.rates), "p50_ms": cuts[49], "p99_ms": cuts[98]}
        return {name: round(figure, 3) for name, figure in figures.items()}

    def _send_and_wait(self, jobs: int) -> None:
        for job in [self.system.submit() for _ in range(jobs)]:
            self._wait(job)

    def _wait(self, job: Any) -> None:
        self.system.wait(job, max(0.1, self.until - time.monotonic()))


@dataclass(frozen=True)
class Report:
    """Both systems' figures, and where they were taken."""

    date: str
    cpu: str
    versions: dict[str, str]
    jobs: int
    omnifleet: dict[str, float]
    celery: dict[str, float]
    ratio: dict[str, float]
    """omnifleet's figure as a multiple of bare Celery's."""


def measure(jobs: int) -> Report:
    """Run both systems in turns and compare them."""
    with _systems() as systems:
        return _report(jobs, *figures_by_turns(systems, jobs, LIMIT))


def figures_by_turns(systems: Sequence[System], jobs: int, seconds: float) -> list[dict[str, float]]:
    """Measure systems turn by turn, so that a busy machine is busy for each. Gives the figures of each.

    Args:
        systems: what is measured.
        jobs: sent to each in crowds.
        seconds: after which it is given up.
    """
    with ExitStack() as pools:
        meters = [Meter(system, time.monotonic() + seconds) for system in systems]
        # Celery keeps a result backend a thread: each system has senders of its own, for the whole run.
        senders = [pools.enter_context(ThreadPoolExecutor(SENDERS)) for _ in meters]
        for meter, threads in zip(meters, senders, strict=True):
            meter.warm_up(threads)
        for _ in range(ROUNDS):
            for meter, threads in zip(meters, senders, strict=True):
                meter.take_latencies(max(1, round(jobs * LATENCY_SHARE / ROUNDS)))
                meter.take_rate(jobs // ROUNDS, threads)
        return [meter.figures() for meter in meters]


@contextmanager
def _systems() -> Iterator[tuple[System, System]]:
    with tempfile.TemporaryDirectory(prefix="omnifleet-benchmark-") as name, ExitStack() as running:
        folder = Path(name)
        redis_url = running.enter_context(redis_server(folder))
        settings = {"redis_url": redis_url, "storage": f"file://{folder}/storage", "queue": "noop"}
        environment = {f"OMNIFLEET_{key.upper()}": value for key, value in settings.items()}
        environment |= {"OMNIFLEET_CONCURRENCY": str(CONCURRENCY), "PYTHONUNBUFFERED": "1"}
        running.enter_context(workers(folder, environment, "noop_worker.py", "bare_worker.py"))
        client = running.enter_context(Client(**settings))
        bare = running.enter_context(create_bare_app(redis_url))
        try:
            yield Fleet(client), BareCelery(bare)
        finally:
            # While Redis is there: an AsyncResult unsubscribes when it is collected, and complains where it cannot.
            gc.collect()


def _report(jobs: int, fleet: dict[str, float], celery: dict[str, float]) -> Report:
    return Report(
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        cpu=cpu(),
        versions=versions(),
        jobs=jobs,
        omnifleet=fleet,
        celery=celery,
        ratio={name: round(fleet[name] / celery[name], 3) for name in fleet},
    )


def show(report: Report) -> None:
    """Print the table."""
    table = Table(title=f"An engine that does nothing, {report.jobs:,} jobs each")
    for column in ("", "omnifleet", "bare Celery", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    names = {"jobs_per_second": "throughput, jobs/s", "p50_ms": "latency p50, ms", "p99_ms": "latency p99, ms"}
    for key, name in names.items():
        table.add_row(name, f"{report.omnifleet[key]:.1f}", f"{report.celery[key]:.1f}", f"{report.ratio[key]:.2f}")
    console = Console()
    console.print(table)
    versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    console.print(f"{report.date}; {report.cpu}; {versions}", highlight=False)


@app.command()
def main(
    jobs: Annotated[int, typer.Option(min=20, help="Jobs sent in crowds to each system.")] = 2000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure what omnifleet adds to Celery."""
    report = measure(jobs)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
