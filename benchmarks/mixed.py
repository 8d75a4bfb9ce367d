"""Mixed jobs through the whole fleet: how busy its device is while there are jobs, and what the fleet costs.

Understand, generate and edit jobs come at random moments (a Poisson process), faster than one worker can do them. Then
clips are sent at once, and the same again with transcriptions among them: those should cost the clips next to nothing.
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
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Report:
    """What was measured, and where."""

    date: str
    device: str
    jobs: int
    jobs_per_second: float
    busy_share: float
    """Part of the time in which the device worked, while any job had no outcome."""
    fleet_seconds: float
    """That a job spends in the fleet's own work: fetching, decoding, encoding, storing, recording."""
    p50: dict[str, float]
    p99: dict[str, float]
    """Seconds from submission to outcome, by namespace."""
    burst: Burst


@dataclass(frozen=True)
class Burst:
    """Jobs that are sent at once: clips, half as many edits, and half as many transcriptions. Seconds from then on."""

    clips: int
    clips_alone: float
    """To the last clip or edit, where there are no transcriptions."""
    clips_mixed: float
    """To the last clip or edit, beside transcriptions."""
    answers: float
    """To the last transcription."""
    ratio: float
    """Of all that is mixed to the clips alone."""


@dataclass(frozen=True)
class Carried:
    """A job that has its outcome; seconds of the monotonic clock."""

    kind: str
    began: float
    ended: float
    fleet_seconds: float
    """Of the fleet's own work."""

    @property
    def latency(self) -> float:
        """Seconds from submission to outcome."""
        return self.ended - self.began


def unfinished_seconds(jobs: Sequence[Carried]) -> float:
    """In which any of the jobs had no outcome: overlapping ones count once."""
    seconds, until = 0.0, float("-inf")
    for job in sorted(jobs, key=lambda one: one.began):
        seconds += max(0.0, job.ended - max(job.began, until))
        until = max(until, job.ended)
    return seconds


def _busy_seconds(pages: str) -> float:
    """In which the worker's device has worked; counted before a job has its outcome, and only while there is one."""
    with urlopen(f"{pages}/metrics", timeout=60) as page:
        families = text_string_to_metric_families(page.read().decode())
    return next(
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == "omnifleet_engine_busy_seconds_total"
    )


def measure(jobs: int, rate: float, steps: int, burst: int, checkpoint: Path | None) -> Report:
    """Send so many jobs, about `rate` a second, and watch; then a burst of so many clips with what goes with them."""
    with _fleet(checkpoint) as (client, pages, folder), ThreadPoolExecutor(max(jobs + 1, 2 * burst)) as threads:
        sound = _sound(folder)
        for kind in KINDS:  # connections, caches
            _carry(client, kind, sound, steps)
        sent: list[Future[Carried]] = []
        busy, moments, start = _busy_seconds(pages), random.Random(1), time.monotonic()
        for number in range(jobs):
            time.sleep(moments.expovariate(rate))
            sent.append(threads.submit(_carry, client, KINDS[number % len(KINDS)], sound, steps))
        carried = [job.result() for job in sent]
        busy = _busy_seconds(pages) - busy
        at_once = _measure_burst(client, threads, sound, burst, steps)
    latencies = {kind: [job.latency for job in carried if job.kind == kind] for kind in KINDS}
    return Report(
        date=datetime.now(UTC).isoformat(timespec="minutes"),
        device=torch.cuda.get_device_name() if torch.cuda.is_available() else machine.cpu(),
        jobs=jobs,
        jobs_per_second=jobs / (max(job.ended for job in carried) - start),
        busy_share=busy / unfinished_seconds(carried),
        fleet_seconds=mean(job.fleet_seconds for job in carried),
        p50={kind: quantiles(values, n=100, method="inclusive")[49] for kind, values in latencies.items()},
        p99={kind: quantiles(values, n=100, method="inclusive")[98] for kind, values in latencies.items()},
        burst=at_once,
    )


def _measure_burst(client: Client, threads: ThreadPoolExecutor, sound: Path, clips: int, steps: int) -> Burst:
    halves = max(1, clips // 2)
    sampled = ["generate"] * clips + ["edit"] * halves
    alone = _last(client, threads, sound, steps, sampled)
    mixed = _last(client, threads, sound, steps, [*sampled, *["understand"] * halves])
    clips_alone, clips_mixed = (max(times["generate"], times["edit"]) for times in (alone, mixed))
    ratio = max(mixed.values()) / clips_alone
    return Burst(clips, clips_alone, clips_mixed, mixed["understand"], ratio)


def _last(
    client: Client, threads: ThreadPoolExecutor, sound: Path, steps: int, kinds: Sequence[str]
) -> dict[str, float]:
    """Seconds to the last outcome of each kind, of jobs that are sent at once."""
    carried = list(threads.map(lambda kind: _carry(client, kind, sound, steps), kinds))
    return {kind: max(job.latency for job in carried if job.kind == kind) for kind in set(kinds)}


def _carry(client: Client, kind: str, sound: Path, steps: int) -> Carried:
    began = time.monotonic()
    if kind == "understand":
        result: Any = client.understand("transcribe", sound, max_new_tokens=64).result(timeout=3600)
    elif kind == "generate":
        result = client.generate("t2a", "rain on a tin roof", steps=steps).result(timeout=3600)
    else:
        result = client.edit("add", sound, desc="rain", steps=steps).result(timeout=3600)
    ended, timings = time.monotonic(), result.record.timings.model_dump()
    of_the_model = timings["queued"] + timings["conditioned"] + timings["sampled"]
    own = max(ended - began - of_the_model, sum(timings[stage] for stage in FLEET_STAGES))
    return Carried(kind, began, ended, own)


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
    table.add_row("device busy while there are jobs", f"{report.busy_share:.1%}")
    table.add_row("the fleet's own work a job, s", f"{report.fleet_seconds:.3f}")
    for kind in KINDS:
        table.add_row(f"{kind}: p50 / p99, s", f"{report.p50[kind]:.2f} / {report.p99[kind]:.2f}")
    burst = report.burst
    halves = max(1, burst.clips // 2)
    table.add_row(f"{burst.clips} clips and {halves} edits at once, s", f"{burst.clips_alone:.2f}")
    table.add_row(f"the same with {halves} transcriptions, s", f"{burst.clips_mixed:.2f}")
    table.add_row("of those, the last transcription, s", f"{burst.answers:.2f}")
    table.add_row("all together, of the clips alone", f"{burst.ratio:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{report.date}; {report.device}", highlight=False)


@app.command()
def main(
    jobs: Annotated[int, typer.Option(min=6, help="Jobs in all.")] = 60,
    rate: Annotated[float, typer.Option(help="Jobs that come in a second, on average.")] = 4.0,
    steps: Annotated[int, typer.Option(min=1, help="Of each clip.")] = 25,
    burst: Annotated[int, typer.Option(min=1, help="Clips that are sent at once.")] = 16,
    checkpoint: Annotated[Path | None, typer.Option(help="A converted checkpoint; a tiny one by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a fleet of one worker under a mixed load."""
    report = measure(jobs, rate, steps, burst, checkpoint)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
