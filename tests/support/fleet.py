"""A real fleet for tests: worker processes on a tiny checkpoint, and clients that talk to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support import services

START_SECONDS = 90


@dataclass
class Worker:
    """A worker process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        """As the kernel's out-of-memory killer would."""
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds: float = 60) -> int:
        """As Kubernetes would; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def wait_until_ready(self) -> None:
        services.wait_until(self._is_ready, START_SECONDS, f"worker ready, see {self.log}")

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, f"the worker ended:\n{self.log.read_text()[-3000:]}"
        return " ready." in self.log.read_text()


@contextmanager
def worker(environment: dict[str, str], log: Path, *arguments: str) -> Iterator[Worker]:
    """A worker process, `omnifleet-worker run` unless other arguments are given, that is gone after the block."""
    command = [sys.executable, "-m", *(arguments or ("omnifleet_worker", "run"))]
    # One thread each: two workers on two cores otherwise spend their time waiting for each other.
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
    try:
        yield Worker(child, log)
    finally:
        child.kill()
        child.wait()
