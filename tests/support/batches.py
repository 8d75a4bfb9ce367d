"""A fleet of scripted workers for tests of batches, and `omnifleet batch` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import PYTHONPATH, services
from support.fork_server import ForkServer

WAIT = 240.0
KILLED = -9


@dataclass
class BatchFleet:
    """Scripted workers on a Redis of their own."""

    redis: services.RedisServer
    environment: dict[str, str]
    logs: Path
    fork_server: ForkServer
    workers: list[int]

    def start_worker(self) -> int:
        """A worker that is ready; gives its process id."""
        log = self.logs / f"worker-{len(self.workers)}.log"
        pid = self.fork_server.fork(self.environment, log, f"--hostname={log.stem}@%h")
        self.workers.append(pid)
        services.wait_until(lambda: log.exists() and " ready." in log.read_text(), WAIT, f"worker ready, see {log}")
        return pid

    @staticmethod
    def kill(worker: int) -> None:
        """As the kernel's out-of-memory killer would."""
        os.kill(worker, signal.SIGKILL)

    def runs(self) -> Counter[str]:
        """How often workers began each job, by its id."""
        return Counter(record["job_id"] for record in self._records() if record.get("action") == "job_started")

    def _records(self) -> Iterator[dict[str, Any]]:
        for log in self.logs.iterdir():
            for line in log.read_text().splitlines():
                if line.startswith("{"):
                    yield json.loads(line)


@contextmanager
def batch_fleet(folder: Path, fork_server: ForkServer, **settings: str) -> Iterator[BatchFleet]:
    """A fleet without workers yet; all of it is gone after the block."""
    (folder / "redis").mkdir()
    (folder / "logs").mkdir()
    redis = services.RedisServer(services.free_port(), folder / "redis")
    environment = {
        "OMNIFLEET_REDIS_URL": redis.url,
        "OMNIFLEET_STORAGE": f"file://{folder}/storage",
        "OMNIFLEET_LEASE": "4",
        "OMNIFLEET_RETRY_BACKOFF": "0.2",
        "PYTHONPATH": PYTHONPATH,
    }
    with redis.running():
        fleet = BatchFleet(redis, environment | settings, folder / "logs", fork_server, [])
        try:
            yield fleet
        finally:
            for worker in fleet.workers:
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)


@contextmanager
def start_batch(fleet: BatchFleet, *arguments: str | Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """`omnifleet batch` with these arguments; its end is waited for, unless the test has failed."""
    command = [sys.executable, "-m", "support.killed_batch", "batch", *map(str, arguments)]
    env = os.environ | fleet.environment | more
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as batch:
        try:
            yield batch
        except BaseException:
            batch.kill()
            raise


def run_batch(fleet: BatchFleet, *arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The same, to its end."""
    with start_batch(fleet, *arguments, **more) as process:
        stdout, stderr = process.communicate(timeout=WAIT)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def write_questions(path: Path, count: int, steps: int = 1) -> Path:
    """A list of questions, each of which takes so many steps of 50 ms."""
    lines = [
        {"task": "understand", "question": f"What is {number}?", "max_new_tokens": steps} for number in range(count)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def read_manifest(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
