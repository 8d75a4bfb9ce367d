"""A small real fleet for one test: Redis, a folder as storage, and scripted workers that the test starts and ends."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnifleet import Client, FleetSettings
from prometheus_client.parser import text_string_to_metric_families

from support import services
from support.fork_server import ForkServer, is_alive

LEASE = 4.0
"""Renewed every second: a worker may be held up for three before another one takes its jobs."""
WAIT = 240.0


@dataclass
class ScriptedFleet:
    """Started by `scripted_fleet`."""

    redis: services.RedisServer
    settings: FleetSettings
    omni: Client
    folder: Path
    fork_server: ForkServer
    workers: list[ScriptedWorker] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Of its workers, and of commands that are to find it."""
        return {
            "OMNIFLEET_REDIS_URL": self.settings.redis_url,
            "OMNIFLEET_STORAGE": self.settings.storage,
            "OMNIFLEET_LEASE": str(LEASE),
            "OMNIFLEET_RETRY_BACKOFF": "0.2",
        }

    def start(self, *arguments: str, ready: bool = True, **more: str) -> ScriptedWorker:
        """A worker with HTTP pages, ready unless told otherwise; gone after the test. Arguments are for Celery."""
        number, port = len(self.workers), services.free_port()
        log = self.folder / f"worker-{number}.log"
        own = {"OMNIFLEET_HTTP_PORT": str(port), "SCRIPTED_HELD": str(self._held)}
        environment = self.environment | own | more
        pid = self.fork_server.fork(environment, log, f"--hostname=scripted-{number}@%h", *arguments)
        worker = ScriptedWorker(pid, log, port)
        self.workers.append(worker)
        if ready:
            services.wait_until(lambda: worker.status("/readyz") == 200, WAIT, f"ready, see {log}")
        return worker

    @contextmanager
    def held(self, steps: int) -> Iterator[None]:
        """Have each worker make no more than so many steps until the block ends: what takes more goes on so long."""
        written = self._held.with_suffix(".new")
        written.write_text(str(steps))
        written.replace(self._held)
        try:
            yield
        finally:
            self._held.unlink()

    @property
    def _held(self) -> Path:
        return self.folder / "held"


@dataclass
class ScriptedWorker:
    """A worker process and its pages."""

    pid: int
    log: Path
    port: int

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """As the kernel's out-of-memory killer would."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> None:
        """Until it has ended."""
        services.wait_until(lambda: not is_alive(self.pid), WAIT, f"its end, see {self.log}")

    def page(self, path: str) -> tuple[int, str]:
        """Status and text; status 0 while nothing listens."""
        return page(self.port, path)

    def status(self, path: str) -> int:
        return self.page(path)[0]

    def metrics(self) -> Metrics:
        return scrape(self.port)

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        found = self.log.read_text().splitlines()
        return [json.loads(line) for line in found if line.startswith("{") and line.endswith("}")]


class Metrics(dict[tuple[str, frozenset[tuple[str, str]]], float]):
    """Samples by name and labels."""

    def value(self, name: str, **labels: str) -> float:
        """The sample with exactly these labels; 0 where there is none yet."""
        return self.get((name, frozenset(labels.items())), 0.0)

    def labels(self, name: str) -> dict[str, str]:
        """Of the only sample of that name."""
        (found,) = [dict(labels) for known, labels in self if known == name]
        return found

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self}


def page(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def scrape(port: int) -> Metrics:
    status, text = page(port, "/metrics")
    assert status == 200, text
    families = text_string_to_metric_families(text)
    return Metrics(
        {(one.name, frozenset(one.labels.items())): one.value for family in families for one in family.samples}
    )


@contextmanager
def scripted_fleet(folder: Path, fork_server: ForkServer) -> Iterator[ScriptedFleet]:
    for name in ("redis", "storage"):
        (folder / name).mkdir()
    redis = services.RedisServer(services.free_port(), folder / "redis")
    settings = FleetSettings(redis_url=redis.url, storage=f"file://{folder / 'storage'}", lease=LEASE)
    with redis.running(), Client(settings) as omni:
        scripted = ScriptedFleet(redis, settings, omni, folder, fork_server)
        try:
            yield scripted
        finally:
            for worker in scripted.workers:
                worker.kill()
