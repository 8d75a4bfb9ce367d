"""Forks worker processes from one that has imported everything: a new worker is there at once.

Run as a module it is that process: one order a line of its input, one process id a line of its output. It ends with its
input, and all that it forked end with it, so that nothing is left even of a run that was killed itself.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import TESTS


class ForkServer:
    """The other end of that process; it, and every worker, is gone after the block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=TESTS,
            # Two workers on two cores otherwise spend their time waiting for each other.
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            # Of its own, for `_end_all`; and Ctrl-C is for the run alone, which ends the rest.
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def fork(self, environment: Mapping[str, str], log: Path, *arguments: str) -> int:
        """Start a worker; gives its process id."""
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"environment": dict(environment), "log": str(log), "arguments": arguments}
        self._process.stdin.write(f"{json.dumps(order)}\n")
        return int(self._process.stdout.readline())


def is_alive(pid: int) -> bool:
    """Whether that worker has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _take_orders() -> None:
    from support import scripted_worker

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    gc.freeze()  # a collection in a worker would otherwise copy every page that it shares
    try:
        for line in sys.stdin:
            pid = os.fork()
            if pid == 0:
                _become_worker(json.loads(line), scripted_worker)
            sys.stdout.write(f"{pid}\n")
            sys.stdout.flush()
    finally:
        os.killpg(0, signal.SIGKILL)


def _become_worker(order: Mapping[str, Any], worker: Any) -> None:
    """Never returns: what comes after belongs to the process that forked this one."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["environment"])
        worker.work(order["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    _take_orders()
