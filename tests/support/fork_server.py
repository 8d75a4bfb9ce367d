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
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support import TESTS, processes


class ForkServer:
    """The other end of that process; it, and every worker, is gone after the block."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._ends = tempfile.TemporaryDirectory(prefix="omnifleet-ends-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.fork_server", self._ends.name],
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
        self._ends.cleanup()

    def exit_code(self, pid: int) -> int:
        """Of a worker that has ended; negative where a signal ended it."""
        return int((Path(self._ends.name) / str(pid)).read_text())

    @contextmanager
    def worker(self, environment: Mapping[str, str], log: Path, *arguments: str) -> Iterator[processes.Process]:
        """As `processes.worker`, of a scripted worker; killed at the end."""
        log.touch()
        running = processes.Process(ForkedProcess(self, self.fork(environment, log, *arguments)), log)
        try:
            yield running
        finally:
            running.kill()

    def fork(self, environment: Mapping[str, str], log: Path, *arguments: str) -> int:
        """Start a worker; gives its process id."""
        assert self._process.stdin is not None and self._process.stdout is not None
        order = {"environment": dict(environment), "log": str(log), "arguments": arguments}
        self._process.stdin.write(f"{json.dumps(order)}\n")
        return int(self._process.stdout.readline())


class ForkedProcess:
    """What `subprocess.Popen` would be if the worker were a child of this process."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self._server = server
        self.pid = pid

    def poll(self) -> int | None:
        return None if is_alive(self.pid) else self._server.exit_code(self.pid)

    def wait(self, timeout: float = processes.START_SECONDS) -> int:
        processes.wait_until(lambda: not is_alive(self.pid), timeout, f"the end of worker {self.pid}")
        return self._server.exit_code(self.pid)

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def is_alive(pid: int) -> bool:
    """Whether that worker has not ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _take_orders(ends: Path) -> None:
    from support import scripted_worker

    signal.signal(signal.SIGCHLD, lambda *_: _note_ends(ends))
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


def _note_ends(folder: Path) -> None:
    """Write the exit code of each worker that has ended, and only then let its process id go."""
    with suppress(ChildProcessError):
        while (end := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
            (folder / str(end.si_pid)).write_text(str(code))
            os.waitpid(end.si_pid, 0)


def _become_worker(order: Mapping[str, Any], worker: Any) -> None:
    """Never returns: what comes after belongs to the process that forked this one."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(order["environment"])
        worker.work(order["arguments"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _take_orders(Path(sys.argv[1]))
