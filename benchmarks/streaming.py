"""Streamed jobs beside the same jobs whole: seconds to the first part and to the end, through a worker and Redis.

The worker runs the checkpoint that is named, or a tiny one with random weights, on the device that it finds.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from machine import cpu, versions
from omnifleet import Client, FleetSettings, JobHandle
from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint
from processes import redis_server
from rich.console import Console
from rich.table import Table
from support.processes import worker

SENTENCES = "One more word is said in this sentence of them. " * 8
"""Half a minute, in as many parts."""
TIMEOUT = 900.0
"""Seconds after which a job is given up."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Send = Callable[..., JobHandle[Any]]


@dataclass(frozen=True)
class Row:
    """Of one kind of job, medians in seconds."""

    parts: int
    first: float
    """From sending a streamed job to its first part in the reader's memory."""
    end: float
    """To its last one."""
    whole: float
    """From sending the same job without `stream` to its result there."""


@dataclass(frozen=True)
class Report:
    """What was measured, and where."""

    date: str
    cpu: str
    versions: dict[str, str]
    steps: int
    rows: dict[str, Row]


def kinds(omni: Client, steps: int) -> dict[str, Send]:
    """The jobs: music of a minute, speech of many sentences, and a long answer."""
    same = {"seed": 7}
    return {
        "t2m, 60 s": lambda **more: omni.generate("t2m", "a slow waltz", seconds=60, steps=steps, **same, **more),
        "tts, 8 sentences": lambda **more: omni.generate("tts", SENTENCES, steps=steps, **same, **more),
        "question, 512 tokens": lambda **more: omni.understand(
            question="What is heard?", max_new_tokens=512, temperature=1.0, **same, **more
        ),
    }


def measure_kind(send: Send, runs: int) -> Row:
    """Send the job streamed and whole, by turns."""
    pairs = [(_stream(send), _whole(send)) for _ in range(runs)]
    streams, wholes = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    first, end = (round(median(one[place] for one in streams), 3) for place in (0, 1))
    return Row(parts=int(streams[0][2]), first=first, end=end, whole=round(median(wholes), 3))


def _stream(send: Send) -> tuple[float, float, int]:
    start, times = time.perf_counter(), list[float]()
    for part in send(stream=True).stream(timeout=TIMEOUT):
        if part.audio is not None:
            part.audio.read()
        times.append(time.perf_counter() - start)
    return times[0], times[-1], len(times)


def _whole(send: Send) -> float:
    start = time.perf_counter()
    result = send().result(TIMEOUT)
    if result.audio is not None:
        result.audio.read()
    return time.perf_counter() - start


@contextmanager
def _fleet(checkpoint: Path | None) -> Iterator[Client]:
    with tempfile.TemporaryDirectory(prefix="omnifleet-benchmark-") as name, redis_server(Path(name)) as redis_url:
        folder = Path(name)
        if checkpoint is None:
            write_tiny_checkpoint(checkpoint := folder / "checkpoint")
        (folder / "storage").mkdir()
        settings = FleetSettings(redis_url=redis_url, storage=f"file://{folder}/storage")
        environment = {"OMNIFLEET_REDIS_URL": redis_url, "OMNIFLEET_STORAGE": settings.storage}
        environment |= {"OMNIFLEET_CHECKPOINT": str(checkpoint)}
        with worker(environment, folder / "worker.log") as started, Client(settings) as omni:
            started.wait_until_ready()
            yield omni


def measure(checkpoint: Path | None, steps: int, runs: int) -> Report:
    """Measure all kinds, one after the other."""
    with _fleet(checkpoint) as omni:
        omni.generate("t2a", "rain", steps=steps).result(TIMEOUT)  # the first job of a worker takes longer
        rows = {kind: measure_kind(send, runs) for kind, send in kinds(omni, steps).items()}
    date = datetime.now(UTC).isoformat(timespec="minutes")
    return Report(date=date, cpu=cpu(), versions=versions(), steps=steps, rows=rows)


def show(report: Report) -> None:
    """Print one table."""
    head = ("", "parts", "first part, s", "end, s", "first / end", "whole, s", "end / whole")
    table = Table(*head, title=f"Streamed and whole, {report.steps} steps")
    for kind, row in report.rows.items():
        times = f"{row.first:.2f}", f"{row.end:.2f}", f"{row.first / row.end:.2f}"
        table.add_row(kind, str(row.parts), *times, f"{row.whole:.2f}", f"{row.end / row.whole:.2f}")
    console = Console()
    console.print(table)
    console.print(f"{report.date}; {report.cpu}; {report.versions}", highlight=False)


@app.command()
def main(
    checkpoint: Annotated[Path | None, typer.Option(help="Folder; a tiny one with random weights by default.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Diffusion steps of a clip.")] = 100,
    runs: Annotated[int, typer.Option(min=1, help="Jobs of each kind, streamed and whole.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure the time to the first part beside the time to the end."""
    report = measure(checkpoint, steps, runs)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
