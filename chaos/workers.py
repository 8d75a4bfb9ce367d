"""The worker processes: hit by faults, and replaced once they have exited."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from support import services
from support.fork_server import ForkServer, is_alive

from .servers import Link, Pause, Servers

START_SECONDS = 120.0
LARGEST_SKEW = 120.0
"""Seconds by which a worker's clock may be wrong."""


@dataclass(eq=False)
class WorkerProcess:
    """A worker process, its log and its way to the servers."""

    pid: int
    log: Path
    link: Link
    ready: bool = False
    is_hit: bool = False
    """Whether a fault was aimed at it that is not over."""

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
        """Whether it takes jobs: ready, not hit and not gone."""
        if not self.ready and not self.is_gone:
            self.ready = " ready." in self.log.read_text()
        return self.ready and not self.is_hit and not self.is_gone

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Workers:
    """Keeps one worker process running on every link.

    Args:
        servers: with a link for each of them.
        folder: for their logs.
        fork_server: forks them, and ends them when it ends.
        skews: decides how wrong the workers' clocks are; None where all are right.
        deliveries: workers that a job may lose in a row before it is put aside.
    """

    def __init__(
        self, servers: Servers, folder: Path, fork_server: ForkServer, skews: random.Random | None, deliveries: int
    ) -> None:
        self.exits = 0
        """Workers that exited without having been killed."""
        self.started = 0
        self._links = servers.workers
        self._credentials = servers.credentials
        self._folder = folder
        self._switches = folder / "switches"
        self._switches.mkdir()
        self._workers: list[WorkerProcess] = []
        self._fork_server = fork_server
        self._skews = skews
        self._deliveries = deliveries
        self._lock = threading.Lock()

    def start(self) -> None:
        """Start all of them; returns once they take jobs."""
        for link in self._links:
            self._start(link)
        all_up = lambda: len(self._up()) == len(self._links)  # noqa: E731
        services.wait_until(all_up, START_SECONDS, f"workers ready, see {self._folder}")

    def replace_exited(self) -> None:
        """Replace workers that exited on their own, as Kubernetes would."""
        with self._lock:
            for worker in [worker for worker in self._workers if worker.is_gone]:
                self.exits += 1
                self._replace(worker)

    def choose(self, rng: random.Random) -> WorkerProcess | None:
        """Pick a worker that takes jobs and is not the only one that does, for a fault; None where there is none.

        No other fault is aimed at it until it is released.
        """
        with self._lock:
            up = self._up()
            if len(up) < 2:
                return None
            worker = rng.choice(up)
            worker.is_hit = True
            return worker

    def release(self, worker: WorkerProcess) -> None:
        """End what `choose` began."""
        worker.is_hit = False

    def kill(self, worker: WorkerProcess) -> None:
        """Kill a worker as the kernel's out-of-memory killer would, and start another one."""
        with self._lock:
            worker.send(signal.SIGKILL)
            if worker in self._workers:  # else it has exited and was replaced by now
                self._replace(worker)

    def stop(self, worker: WorkerProcess, pause: Pause) -> None:
        """Stop a worker (SIGSTOP) for the length of the pause."""
        worker.send(signal.SIGSTOP)
        try:
            pause()
        finally:
            worker.send(signal.SIGCONT)

    def break_device(self, worker: WorkerProcess) -> None:
        """Break the worker's device for good. The worker is expected to end, and then replaced."""
        self._switch(worker, "broken-device").touch()

    def fill_disk(self, worker: WorkerProcess, pause: Pause) -> None:
        """Leave the worker no space to write to for the length of the pause."""
        switch = self._switch(worker, "full-disk")
        switch.touch()
        pause()
        switch.unlink()

    def _switch(self, worker: WorkerProcess, fault: str) -> Path:
        """Name the file that begins a fault, see `support.scripted_faults`."""
        return self._switches / f"{worker.pid}.{fault}"

    def _up(self) -> list[WorkerProcess]:
        return [worker for worker in list(self._workers) if worker.is_up]

    def _replace(self, worker: WorkerProcess) -> None:
        self._workers.remove(worker)
        self._start(worker.link)

    def _start(self, link: Link) -> None:
        log = self._folder / f"worker-{self.started}.log"
        log.touch()
        pid = self._fork_server.fork(self._environment(link), log, f"--hostname=chaos-{self.started}@%h")
        self._workers.append(WorkerProcess(pid, log, link))
        self.started += 1

    def _environment(self, link: Link) -> dict[str, str]:
        skew = self._skews.uniform(-LARGEST_SKEW, LARGEST_SKEW) if self._skews else 0.0
        settings = link.settings
        return self._credentials | {
            "OMNIFLEET_REDIS_URL": settings.redis_url,
            "OMNIFLEET_REDIS_TIMEOUT": str(settings.redis_timeout),
            "OMNIFLEET_STORAGE": settings.storage,
            "OMNIFLEET_S3_ENDPOINT": str(settings.s3_endpoint),
            "OMNIFLEET_LEASE": str(settings.lease),
            "OMNIFLEET_RETRY_BACKOFF": "0.2",
            "OMNIFLEET_MAX_DELIVERIES": str(self._deliveries),
            "SCRIPTED_FAULTS": str(self._switches),
            "SCRIPTED_CLOCK_SKEW": str(skew),
        }
