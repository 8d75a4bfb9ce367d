"""Keeps the demo's fleet up after the demo, in a process that owns Redis and the worker, and ends with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from filelock import FileLock, Timeout
from omnifleet_shared.atomic_file import write_atomically

from .services import fleet

START_SECONDS = 300.0
"""Longest wait for the fleet to be up: its workers start together, which takes a slow machine minutes."""
STOP_SECONDS = 60.0


def lock(home: Path) -> FileLock:
    """Make the lock that a fleet in this folder is held under, so that no other one starts there."""
    return FileLock(home / "fleet.lock")


def kept_environment(home: Path) -> dict[str, str] | None:
    """Give the environment for clients of the fleet that is kept up; None where none is."""
    if not _is_held(home):
        return None
    try:
        environment: dict[str, str] = json.loads((home / "kept.json").read_bytes())["environment"]
    except FileNotFoundError:  # its keeper has only begun, or it is a demo that ends by itself
        return None
    return environment


def keep(home: Path) -> dict[str, str]:
    """Start a fleet that stays up after this process, and give the environment for clients. Raises SystemExit."""
    if (environment := kept_environment(home)) is not None:
        return environment
    with (home / "keeper.log").open("wb") as log:
        command = [sys.executable, "-m", "demo.keeper", str(home)]
        # A session of its own: neither Ctrl-C nor the end of the terminal reaches it.
        keeper = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        return _await_environment(home, keeper)
    except BaseException:
        keeper.terminate()
        raise


def stop(home: Path) -> bool:
    """End the fleet that is kept up, and return when all of it is gone; gives False where none is up."""
    if kept_environment(home) is None:
        return False
    os.kill(json.loads((home / "kept.json").read_bytes())["pid"], signal.SIGTERM)
    with lock(home).acquire(timeout=STOP_SECONDS):
        return True


def main(home: Path) -> None:
    """Keep a fleet up until SIGTERM."""
    signal.signal(signal.SIGTERM, _end)
    with lock(home).acquire(timeout=0), fleet(home) as environment:
        try:
            with write_atomically(home / "kept.json") as file:
                file.write(json.dumps({"pid": os.getpid(), "environment": environment}).encode())
            while True:
                signal.pause()
        finally:
            (home / "kept.json").unlink(missing_ok=True)


def _end(*_: object) -> NoReturn:
    raise SystemExit


def _is_held(home: Path) -> bool:
    try:
        with lock(home).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _await_environment(home: Path, keeper: subprocess.Popen[bytes]) -> dict[str, str]:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if keeper.poll() is not None:
            raise SystemExit(f"The fleet did not start:\n{(home / 'keeper.log').read_text(errors='replace')[-3000:]}")
        if (environment := kept_environment(home)) is not None:
            return environment
        time.sleep(0.2)
    raise SystemExit(f"The fleet is not up after {START_SECONDS:.0f} s: see {home}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
