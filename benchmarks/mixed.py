"""A stream of mixed jobs through the whole fleet: how busy its model is while there are jobs, and what the fleet costs.

Understand, generate and edit jobs come at random moments (a Poisson process), faster than one worker can do them.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import mean, quantiles
from typing import Annotated, Any
from urllib.request import urlopen

import machine
import soundfile
import torch
import typer
from omnifleet import Client
from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint
from processes import free_port, process, redis_server
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

KINDS = ("understand", "generate", "edit")
FLEET_STAGES = ("fetched", "decoded", "encoded", "stored")
LOOK_SECONDS = 0.1
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Report:
    """What was measured, and where."""

    date: str
    device: str
    jobs: int
    jobs_per_second: float
    busy_share: float
    """Part of the time in which the model worked, while any job had no outcome."""
    fleet_seconds: float
    """That a job spends in the fleet's own work: fetching, decoding, encoding, storing, recording."""
    p50: dict[str, float]
    p99: dict[str, float]
    """Seconds from submission to outcome, by namespace."""


@dataclass(frozen=True)
class Look:
    """The worker at a moment."""

    at: float
    busy_seconds: float
    unfinished: int
    """Jobs without an outcome."""


class Watcher:
    """Looks at the worker's metrics while the stream runs.

    Args:
        pages: of the worker.
        sent: jobs so far.
    """

    def __init__(self, pages: str, sent: Sequence[Future[Any]]) -> None:
        self._pages = pages
        self._sent = sent
        self.looks: list[Look] = []
        self.done = False

    def watch(self) -> None:
        """Until `done`."""
        while not self.done:
            unfinished = sum(not job.done() for job in self._sent)
            self.looks.append(Look(time.monotonic(), self._busy_seconds(), unfinished))
            time.sleep(LOOK_SECONDS)

    def busy_share(self) -> float:
        """Over all pairs of looks of which the first one saw jobs without an outcome."""
        pairs = [(one, other) for one, other in pairwise(self.looks) if one.unfinished]
        seconds = sum(other.at - one.at for one, other in pairs)
        return sum(other.busy_seconds - one.busy_seconds for one, other in pairs) / seconds if seconds else 0.0

    def _busy_seconds(self) -> float:
        with urlopen(f"{self._pages}/metrics", timeout=10) as page:
            families = text_string_to_metric_families(page.read().decode())
        return next(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == "omnifleet_engine_busy_seconds_total"
        )


def measure(jobs: int, rate: float, steps: int, checkpoint: Path | None) -> Report:
    """Send so many jobs, about `rate` a second, and watch."""
    with _fleet(checkpoint) as (client, pages, folder), ThreadPoolExecutor(jobs + 1) as threads:
        sound = _sound(folder)
        for kind in KINDS:  # connections, caches
            _carry(client, kind, sound, steps)
        sent: list[Future[Any]] = []
        watcher = Watcher(pages, sent)
        watching = threads.submit(watcher.watch)
        moments, start = random.Random(1), time.monotonic()
        for number in range(jobs):
            time.sleep(moments.expovariate(rate))
            sent.append(threads.submit(_carry, client, KINDS[number % len(KINDS)], sound, steps))
        carried = [job.result() for job in sent]
        seconds = time.monotonic() - start
        watcher.done = True
        watching.result()
    latencies = {kind: [latency for which, latency, _ in carried if which == kind] for kind in KINDS}
    return Report(
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else machine.cpu(),
        jobs=jobs,
        jobs_per_second=jobs / seconds,
        busy_share=watcher.busy_share(),
        fleet_seconds=mean(own for _, _, own in carried),
        p50={kind: quantiles(values, n=100, method="inclusive")[49] for kind, values in latencies.items()},
        p99={kind: quantiles(values, n=100, method="inclusive")[98] for kind, values in latencies.items()},
    )


def _carry(client: Client, kind: str, sound: Path, steps: int) -> tuple[str, float, float]:
    """A job's namespace, seconds in all, and those of the fleet's own work."""
    start = time.monotonic()
    if kind == "understand":
        result: Any = client.understand("caption", sound, max_new_tokens=24).result(timeout=3600)
    elif kind == "generate":
        result = client.generate("t2a", "rain on a tin roof", steps=steps).result(timeout=3600)
    else:
        result = client.edit("add", sound, desc="rain", steps=steps).result(timeout=3600)
    latency, timings = time.monotonic() - start, result.record.timings.model_dump()
    of_the_model = timings["queued"] + timings["conditioned"] + timings["sampled"]
    return kind, latency, max(latency - of_the_model, sum(timings[stage] for stage in FLEET_STAGES))


@contextmanager
def _fleet(checkpoint: Path | None) -> Iterator[tuple[Client, str, Path]]:
    with tempfile.TemporaryDirectory(prefix="omnifleet-mixed-") as name:
        folder = Path(name)
        if checkpoint is None:
            checkpoint = folder / "checkpoint"
            write_tiny_checkpoint(checkpoint)
        with redis_server(folder) as redis_url:
            settings = {"redis_url": redis_url, "storage": f"file://{folder}/storage", "queue": "mixed"}
            port = free_port()
            environment = {f"OMNIFLEET_{key.upper()}": value for key, value in settings.items()}
            environment |= {"OMNIFLEET_CHECKPOINT": str(checkpoint), "OMNIFLEET_HTTP_PORT": str(port)}
            environment |= {"OMNIFLEET_HTTP_HOST": "127.0.0.1", "PYTHONUNBUFFERED": "1"}
            command = [sys.executable, "-m", "omnifleet_worker", "run"]
            with process(command, folder / "worker.log", environment) as worker, Client(**settings) as client:
                worker.wait_until_logged(" ready.")
                yield client, f"http://127.0.0.1:{port}", folder


def _sound(folder: Path) -> Path:
    path = folder / "sound.wav"
    soundfile.write(path, [0.1 * random.Random(number).uniform(-1, 1) for number in range(3 * 16_000)], 16_000)
    return path


def show(report: Report) -> None:
    """Print the table."""
    table = Table(title=f"{report.jobs} mixed jobs, {report.jobs_per_second:.2f} a second")
    table.add_column("")
    table.add_column("measured", justify="right")
    table.add_row("model busy while there are jobs", f"{report.busy_share:.1%}")
    table.add_row("the fleet's own work a job, s", f"{report.fleet_seconds:.3f}")
    for kind in KINDS:
        table.add_row(f"{kind}: p50 / p99, s", f"{report.p50[kind]:.2f} / {report.p99[kind]:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{report.date}; {report.device}", highlight=False)


@app.command()
def main(
    jobs: Annotated[int, typer.Option(min=6, help="Jobs in all.")] = 60,
    rate: Annotated[float, typer.Option(help="Jobs that come in a second, on average.")] = 4.0,
    steps: Annotated[int, typer.Option(min=1, help="Of each clip.")] = 25,
    checkpoint: Annotated[Path | None, typer.Option(help="A converted checkpoint; a tiny one by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a fleet of one worker under a mixed load."""
    report = measure(jobs, rate, steps, checkpoint)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
