"""The worker processes: killed, stopped, and replaced once they have exited."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omnifleet_shared.settings import FleetSettings
from support import services
from support.fork_server import ForkServer, is_alive

START_SECONDS = 120.0


@dataclass(eq=False)
class WorkerProcess:
    """A worker process and its log."""

    pid: int
    log: Path
    ready: bool = False
    stopped: bool = False

    @property
    def name(self) -> str:
        """Its name in attempts, logs and dead letters: `host:pid`."""
        return f"{socket.gethostname()}:{self.pid}"

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return not is_alive(self.pid)

    @property
    def is_up(self) -> bool:
        """Whether it takes jobs: ready, and neither stopped nor gone."""
        if not self.ready and not self.is_gone:
            self.ready = " ready." in self.log.read_text()
        return self.ready and not self.stopped and not self.is_gone

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Workers:
    """Keeps a number of worker processes running.

    Args:
        size: number of workers.
        settings: of the fleet, as the workers see it.
        folder: for their logs.
        fork_server: forks them, and ends them when it ends.
    """

    def __init__(self, size: int, settings: FleetSettings, folder: Path, fork_server: ForkServer) -> None:
        self.exits = 0
        """Workers that exited without having been killed."""
        self._size = size
        self._environment = _environment(settings)
        self._folder = folder
        self._workers: list[WorkerProcess] = []
        self._started = 0
        self._fork_server = fork_server
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all of them; returns once they take jobs."""
        for _ in range(self._size):
            self._start()
        services.wait_until(lambda: len(self._up()) == self._size, START_SECONDS, f"workers ready, see {self._folder}")

    def replace_exited(self) -> None:
        """Replace workers that exited on their own, as Kubernetes would."""
        with self._lock:
            for worker in [worker for worker in self._workers if worker.is_gone]:
                self.exits += 1
                self._replace(worker)

    def choose(self, rng: random.Random) -> WorkerProcess | None:
        """Pick a worker that takes jobs and is not the only one that does; None where there is none."""
        up = self._up()
        return rng.choice(up) if len(up) > 1 else None

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker as the kernel's out-of-memory killer would, and start another one."""
        with self._lock:
            worker.send(signal.SIGKILL)
            self._replace(worker)

    def stop(self, worker: WorkerProcess, pause: Callable[[], object]) -> None:
        """Stop a worker (SIGSTOP) for the length of the pause."""
        worker.stopped = True
        worker.send(signal.SIGSTOP)
        try:
            pause()
        finally:
            worker.send(signal.SIGCONT)
            worker.stopped = False

    def _up(self) -> list[WorkerProcess]:
        return [worker for worker in list(self._workers) if worker.is_up]

    def _replace(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        self._start()

    def _start(self) -> None:
        log = self._folder / f"worker-{self._started}.log"
        log.touch()
        pid = self._fork_server.fork(self._environment, log, f"--hostname=chaos-{self._started}@%h")
        self._workers.append(WorkerProcess(pid, log))
        self._started += 1


def _environment(settings: FleetSettings) -> dict[str, str]:
    return {
        "OMNIFLEET_REDIS_URL": settings.redis_url,
        "OMNIFLEET_STORAGE": settings.storage,
        "OMNIFLEET_S3_ENDPOINT": str(settings.s3_endpoint),
        "OMNIFLEET_LEASE": str(settings.lease),
        "OMNIFLEET_RETRY_BACKOFF": "0.2",
        # Workers are killed by us and not by their jobs, so no job is to be dead-lettered.
        "OMNIFLEET_MAX_DELIVERIES": "100",
    }
