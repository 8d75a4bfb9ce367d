"""Streamed jobs beside the same jobs whole: seconds to the first part and to the end, through a worker and Redis.

Speech goes through the gateway too: its events, and the sound of each part that they name. The worker runs the
checkpoint that is named, or a tiny one with random weights, on the device that it finds.
"""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from machine import cpu, versions
from omnifleet import Client, FleetSettings, JobHandle
from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint
from processes import free_port, process, redis_server
from rich.console import Console
from rich.table import Table
from support.processes import worker

SENTENCES = "One more word is said in this sentence of them. " * 8
"""Half a minute, in as many parts."""
TIMEOUT = 900.0
"""Seconds after which a job is given up."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Send = Callable[..., JobHandle[Any]]
Times = list[float]
"""Seconds from sending a job to each of its parts in the reader's memory."""


@dataclass(frozen=True)
class Kind:
    """One kind of job, both ways."""

    stream: Callable[[], Times]
    """Sends it streamed."""
    whole: Callable[[], float]
    """Sends it without `stream`; gives the seconds to its result in the reader's memory."""


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


def kinds(omni: Client, gateway: OverHttp, steps: int) -> dict[str, Kind]:
    """The jobs: music of a minute, speech of many sentences, here and through the gateway, and a long answer."""
    same = {"seed": 7}
    sends: dict[str, Send] = {
        "t2m, 60 s": lambda **more: omni.generate("t2m", "a slow waltz", seconds=60, steps=steps, **same, **more),
        "tts, 8 sentences": lambda **more: omni.generate("tts", SENTENCES, steps=steps, **same, **more),
        "question, 512 tokens": lambda **more: omni.understand(
            question="What is heard?", max_new_tokens=512, temperature=1.0, **same, **more
        ),
    }
    spoken = {"task": "generate.tts", "text": SENTENCES, "steps": steps, **same}
    over_http = Kind(lambda: gateway.stream(spoken), lambda: gateway.whole(spoken))
    return {
        **{name: Kind(partial(_stream, send), partial(_whole, send)) for name, send in sends.items()},
        "tts, 8 sentences, over HTTP": over_http,
    }


def measure_kind(kind: Kind, runs: int) -> Row:
    """Send the job streamed and whole, by turns."""
    pairs = [(kind.stream(), kind.whole()) for _ in range(runs)]
    first, end = (round(median(times[place] for times, _ in pairs), 3) for place in (0, -1))
    return Row(parts=len(pairs[0][0]), first=first, end=end, whole=round(median(whole for _, whole in pairs), 3))


def _stream(send: Send) -> Times:
    start, times = time.perf_counter(), Times()
    for part in send(stream=True).stream(timeout=TIMEOUT):
        if part.audio is not None:
            part.audio.read()
        times.append(time.perf_counter() - start)
    return times


def _whole(send: Send) -> float:
    start = time.perf_counter()
    result = send().result(TIMEOUT)
    if result.audio is not None:
        result.audio.read()
    return time.perf_counter() - start


class OverHttp:
    """Jobs whose sound is fetched from a gateway that listens on this port."""

    def __init__(self, port: int) -> None:
        self._port = port

    def stream(self, job: dict[str, Any]) -> Times:
        """See `Kind`. Parts are fetched as the job's events name them."""
        start, times = time.perf_counter(), Times()
        job_id = self._ask("POST", "/v1/jobs", job | {"stream": True})["id"]
        for event, data in self._events(f"/v1/jobs/{job_id}/events"):
            if event == "part":
                self._fetch(data["audio"]["path"])
                times.append(time.perf_counter() - start)
        return times

    def whole(self, job: dict[str, Any]) -> float:
        """See `Kind`."""
        start = time.perf_counter()
        job_id = self._ask("POST", "/v1/jobs", job)["id"]
        while (answer := self._ask("GET", f"/v1/jobs/{job_id}?wait=300"))["result"] is None:
            assert answer["error"] is None, answer
        self._fetch(answer["result"]["audio"]["path"])
        return time.perf_counter() - start

    def _events(self, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._asked("GET", path) as answer:
            name = ""
            for line in answer:
                field, _, value = line.decode().strip().partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        with self._asked(method, path, body) as answer:
            return json.loads(answer.read())

    def _fetch(self, path: str) -> None:
        with self._asked("GET", path) as answer:
            answer.read()

    @contextmanager
    def _asked(self, method: str, path: str, body: object = None) -> Iterator[http.client.HTTPResponse]:
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)) as connection:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert answer.status in (200, 202), answer.read()
            yield answer


@contextmanager
def _fleet(checkpoint: Path | None) -> Iterator[tuple[Client, OverHttp]]:
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="omnifleet-benchmark-")))
        redis_url = running.enter_context(redis_server(folder))
        if checkpoint is None:
            write_tiny_checkpoint(checkpoint := folder / "checkpoint")
        (folder / "storage").mkdir()
        settings = FleetSettings(redis_url=redis_url, storage=f"file://{folder}/storage")
        environment = {"OMNIFLEET_REDIS_URL": redis_url, "OMNIFLEET_STORAGE": settings.storage}
        port = free_port()
        command = [sys.executable, "-m", "omnifleet", "gateway", "--without-keys", "--port", str(port)]
        started = running.enter_context(
            worker(environment | {"OMNIFLEET_CHECKPOINT": str(checkpoint)}, folder / "worker.log")
        )
        gateway = running.enter_context(process(command, folder / "gateway.log", environment))
        omni = running.enter_context(Client(settings))
        for one in (started, gateway):
            one.wait_until_ready()
        yield omni, OverHttp(port)


def measure(checkpoint: Path | None, steps: int, runs: int) -> Report:
    """Measure all kinds, one after the other."""
    with _fleet(checkpoint) as (omni, gateway):
        omni.generate("t2a", "rain", steps=steps).result(TIMEOUT)  # the first job of a worker takes longer
        rows = {kind: measure_kind(one, runs) for kind, one in kinds(omni, gateway, steps).items()}
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
