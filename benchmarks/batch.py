"""A batch of tiny jobs beside a bare Celery group of as many: jobs a second, memory, and going on after a kill.

Both are processes of their own, from their start to their end, on the same Redis and with workers that do nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from machine import cpu, versions
from omnifleet.batch.journal.journal import Journal
from processes import HERE, redis_server, workers
from rich.console import Console
from rich.table import Table

CONCURRENCY = 16
"""Threads of either worker."""
LIMIT = 900.0
"""Seconds after which a process is given up."""
LOOK_EVERY = 0.02
"""Seconds between looks at a process."""
LINE = json.dumps({"task": "understand", "question": "Is anyone there?"})
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Run:
    """One process, from its start to its end."""

    seconds: float
    megabytes: float
    """Most memory that it had at a time."""


@dataclass(frozen=True)
class Report:
    """What was measured, and where."""

    date: str
    cpu: str
    versions: dict[str, str]
    jobs: int
    jobs_per_second: dict[str, float]
    """Of `batch`, of a Celery `group`, and the first as a multiple of the second."""
    megabytes: dict[str, float]
    """Most memory of the sending process: of `batch`, of a `tenth` as large a batch, and of the `group`."""
    resume_seconds: float
    """From the start of a process that goes on after a kill to the first outcome that it notes."""


class Bench:
    """Runs processes against one Redis."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = os.environ | environment

    def group(self, jobs: int) -> Run:
        """A bare Celery group."""
        return self._finish(self._start(str(HERE / "bare_worker.py"), str(jobs)))

    def batch(self, jobs: int) -> Run:
        """`omnifleet batch run` of a list of its own."""
        return self._finish(self._start_batch(self._list(f"batch-{jobs}", jobs)))

    def resume(self, jobs: int) -> float:
        """Kill a batch half way; gives the seconds until the next process notes an outcome."""
        listed = self._list(f"killed-{jobs}", jobs)
        first = self._start_batch(listed)
        _wait_until_ended(listed, jobs // 2)
        first.kill()
        first.wait()
        before, start = _ended(listed), time.perf_counter()
        second = self._start_batch(listed)
        _wait_until_ended(listed, before + 1)
        seconds = time.perf_counter() - start
        self._finish(second)
        assert _ended(listed) == jobs
        return seconds

    def _list(self, name: str, jobs: int) -> Path:
        path = self._folder / f"{name}.jsonl"
        with path.open("w") as file:
            file.writelines(f"{LINE}\n" for _ in range(jobs))
        return path

    def _start_batch(self, listed: Path) -> subprocess.Popen[bytes]:
        out = str(self._folder / f"out-{listed.stem}")
        return self._start("-m", "omnifleet", "batch", "run", str(listed), "--out", out, "--json")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self._folder / "processes.log").open("ab") as log:
            return subprocess.Popen([sys.executable, *arguments], env=self._environment, stdout=log, stderr=log)

    def _finish(self, process: subprocess.Popen[bytes]) -> Run:
        start, kilobytes = time.perf_counter(), 0
        while process.poll() is None:
            kilobytes = max(kilobytes, _peak(process.pid))
            time.sleep(LOOK_EVERY)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise RuntimeError(f"a process failed:\n{(self._folder / 'processes.log').read_text()[-3000:]}")
        return Run(seconds, kilobytes / 1024)


def _peak(pid: int) -> int:
    """Most memory that the process had so far, in KiB; 0 once it is gone. The kernel's own figure for ended processes
    counts what their parent had when it started them."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _ended(listed: Path) -> int:
    path = Path(f"{listed}.journal")
    if not path.exists():
        return 0
    with Journal(path) as journal:
        return journal.counts().ended


def _wait_until_ended(listed: Path, count: int) -> None:
    until = time.monotonic() + LIMIT
    while _ended(listed) < count:
        if time.monotonic() > until:
            raise RuntimeError(f"{listed.name} did not get to {count} outcomes in {LIMIT} s")
        time.sleep(LOOK_EVERY)


def measure(jobs: int) -> Report:
    """Run both, and compare them."""
    with _bench() as bench:
        bench.group(jobs // 10)
        tenth = bench.batch(jobs // 10)
        group, batch = bench.group(jobs), bench.batch(jobs)
        resumed = bench.resume(jobs)
    rates = {"batch": jobs / batch.seconds, "group": jobs / group.seconds, "ratio": group.seconds / batch.seconds}
    memory = {"batch": batch.megabytes, "tenth": tenth.megabytes, "group": group.megabytes}
    return Report(
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        cpu=cpu(),
        versions=versions(),
        jobs=jobs,
        jobs_per_second={name: round(rate, 3) for name, rate in rates.items()},
        megabytes={name: round(size, 1) for name, size in memory.items()},
        resume_seconds=round(resumed, 3),
    )


@contextmanager
def _bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="omnifleet-benchmark-") as name, redis_server(Path(name)) as redis_url:
        folder = Path(name)
        settings = {"redis_url": redis_url, "storage": f"file://{folder}/storage", "queue": "noop"}
        environment = {f"OMNIFLEET_{key.upper()}": value for key, value in settings.items()}
        environment |= {"OMNIFLEET_CONCURRENCY": str(CONCURRENCY), "PYTHONUNBUFFERED": "1"}
        with workers(folder, environment, "noop_worker.py", "bare_worker.py"):
            yield Bench(folder, environment)


def show(report: Report) -> None:
    """Print one table."""
    rates, memory = report.jobs_per_second, report.megabytes
    table = Table("", "omnifleet batch", "bare Celery group", "ratio", title=f"{report.jobs:,} jobs that do nothing")
    table.add_row("jobs/s", f"{rates['batch']:.1f}", f"{rates['group']:.1f}", f"{rates['ratio']:.2f}")
    sizes = f"{memory['batch']:.0f}", f"{memory['group']:.0f}", f"{memory['batch'] / memory['group']:.2f}"
    table.add_row("most memory, MB", *sizes)
    table.add_row("the same of a tenth of the jobs, MB", f"{memory['tenth']:.0f}", "", "")
    table.add_row("going on after a kill, s", f"{report.resume_seconds:.1f}", "", "")
    console = Console()
    console.print(table)
    console.print(f"{report.date}; {report.cpu}; {report.versions}", highlight=False)


@app.command()
def main(
    jobs: Annotated[int, typer.Option(min=20, help="Jobs of the batch, and of the group.")] = 10_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a batch beside a Celery group."""
    report = measure(jobs)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
