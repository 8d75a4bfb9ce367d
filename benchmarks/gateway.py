"""What HTTP adds: jobs through the gateway beside the same jobs through the Python client, and many open event streams.

Both ways go to the same worker, whose engine does nothing, turn by turn, so that a busy machine is busy for both. Over
HTTP a job is two requests: one sends it, one waits for its outcome.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import typer
from machine import cpu, versions
from omnifleet import Client, FleetSettings
from omnifleet.gateway.access.api_key import make_key
from omnifleet.gateway.access.key_store import KeyStore
from overhead import CONCURRENCY, figures_by_turns
from processes import free_port, process, redis_server, workers
from rich.console import Console
from rich.table import Table
from systems import Fleet

LIMIT = 180.0
"""Seconds after which the measurement is given up, the processes' start not included."""
FOLLOWED = 50
"""Jobs that the streams follow, each by its share of them."""
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Gateway:
    """A running gateway, as another of the `systems`."""

    name = "gateway"

    def __init__(self, port: int, key: str, pid: int) -> None:
        self.port, self.pid = port, pid
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connections = threading.local()

    def submit(self) -> Any:
        """See `System`."""
        return self._ask("POST", "/v1/jobs", {"task": "understand", "question": "Is anyone there?"})["id"]

    def wait(self, job: Any, seconds: float) -> None:
        """See `System`."""
        assert self._ask("GET", f"/v1/jobs/{job}?wait={min(seconds, 300)}")["result"]["text"] == "ok"

    def memory(self) -> int:
        """Bytes that its process holds."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * 4096

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        connection = getattr(self._connections, "own", None)
        if connection is None:
            connection = self._connections.own = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT)
        connection.request(method, path, None if body is None else json.dumps(body), self.headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status in (200, 202), text
        return json.loads(text)


@dataclass(frozen=True)
class Report:
    """The figures of both ways, and of open streams, and where they were taken."""

    date: str
    cpu: str
    versions: dict[str, str]
    jobs: int
    client: dict[str, float]
    gateway: dict[str, float]
    ratio: dict[str, float]
    """The gateway's figure as a multiple of the client's."""
    streams: dict[str, float]
    """Streams, time to the first event, and the process's memory for each of them."""


def measure(jobs: int, streams: int) -> Report:
    """Run both ways in turns, then open the streams."""
    with _running() as (client, gateway, idle):
        of_client, of_gateway = figures_by_turns((Fleet(client), gateway), jobs, LIMIT)
        return Report(
            date=datetime.now(UTC).isoformat(timespec="minutes"),
            cpu=cpu(),
            versions=versions(),
            jobs=jobs,
            client=of_client,
            gateway=of_gateway,
            ratio={name: round(of_gateway[name] / of_client[name], 3) for name in of_client},
            streams=asyncio.run(_open_streams(idle, streams)),
        )


async def _open_streams(gateway: Gateway, count: int) -> dict[str, float]:
    """Follow jobs that nobody does, all streams open at once."""
    job_ids = [gateway.submit() for _ in range(FOLLOWED)]
    before = gateway.memory()
    opened = [await _open_stream(gateway, job_ids[number % FOLLOWED]) for number in range(count)]
    memory = (gateway.memory() - before) / count
    for _, writer in opened:
        writer.close()
    cuts = quantiles([seconds * 1000 for seconds, _ in opened], n=100, method="inclusive")
    return {
        "streams": count,
        "first_event_p50_ms": round(cuts[49], 3),
        "first_event_p99_ms": round(cuts[98], 3),
        "memory_each_kib": round(memory / 1024, 1),
    }


async def _open_stream(gateway: Gateway, job_id: str) -> tuple[float, asyncio.StreamWriter]:
    """Seconds to its first event, and the stream, which stays open."""
    start = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in gateway.headers.items())
    writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: gateway\r\n{head}\r\n".encode())
    async with asyncio.timeout(LIMIT):
        await reader.readuntil(b"event: progress")
    return time.perf_counter() - start, writer


@contextmanager
def _running() -> Iterator[tuple[Client, Gateway, Gateway]]:
    """A client, a gateway, and one of another queue, which has no workers."""
    with tempfile.TemporaryDirectory(prefix="omnifleet-benchmark-") as name, ExitStack() as running:
        folder = Path(name)
        redis_url = running.enter_context(redis_server(folder))
        settings = {"redis_url": redis_url, "storage": f"file://{folder}/storage", "queue": "noop"}
        environment = {f"OMNIFLEET_{key.upper()}": value for key, value in settings.items()}
        environment |= {"OMNIFLEET_CONCURRENCY": str(CONCURRENCY), "PYTHONUNBUFFERED": "1"}
        running.enter_context(workers(folder, environment, "noop_worker.py"))
        key = _make_key(redis_url)
        busy = running.enter_context(_gateway(folder / "gateway.log", environment, key))
        idle_environment = environment | {"OMNIFLEET_QUEUE": "nobody"}
        idle = running.enter_context(_gateway(folder / "idle.log", idle_environment, key))
        yield running.enter_context(Client(**settings)), busy, idle


@contextmanager
def _gateway(log: Path, environment: dict[str, str], key: str) -> Iterator[Gateway]:
    port = free_port()
    command = [sys.executable, "-m", "omnifleet", "gateway", "--port", str(port)]
    with process(command, log, environment) as started:
        started.wait_until_ready()
        yield Gateway(port, key, started.process.pid)


def _make_key(redis_url: str) -> str:
    key, text = make_key("benchmark", rate=1_000_000)
    with closing(KeyStore.connect(FleetSettings(redis_url=redis_url))) as store:
        store.add(key)
    return text


def show(report: Report) -> None:
    """Print the tables."""
    table = Table(title=f"An engine that does nothing, {report.jobs:,} jobs each")
    for column in ("", "Client", "gateway", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    names = {"jobs_per_second": "throughput, jobs/s", "p50_ms": "latency p50, ms", "p99_ms": "latency p99, ms"}
    for key, name in names.items():
        table.add_row(name, f"{report.client[key]:.1f}", f"{report.gateway[key]:.1f}", f"{report.ratio[key]:.2f}")
    console = Console()
    console.print(table)
    open_streams = report.streams
    console.print(
        f"{open_streams['streams']:,.0f} open event streams in one process: first event after "
        f"{open_streams['first_event_p50_ms']:.1f} ms (p50), {open_streams['first_event_p99_ms']:.1f} ms (p99), "
        f"{open_streams['memory_each_kib']:.0f} KiB each",
        highlight=False,
    )
    numbers = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    console.print(f"{report.date}; {report.cpu}; {numbers}", highlight=False)


@app.command()
def main(
    jobs: Annotated[int, typer.Option(min=20, help="Jobs sent in crowds each way.")] = 1000,
    streams: Annotated[int, typer.Option(min=2, help="Event streams that are open at once.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure what HTTP adds to the client."""
    report = measure(jobs, streams)
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        show(report)


if __name__ == "__main__":
    app()
