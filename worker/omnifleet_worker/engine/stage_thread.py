"""Work beside the engine's steps: conditioning of what comes next, decoding of what is done."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from .limits import BatchLimit
from .request import Request


class StageThread:
    """A thread that works through requests in their order. Until it is started, whoever brings them does the work.

    Args:
        name: of the thread.
        work: done with the requests that wait; it must not raise.
        most: limits the requests that are worked on at once; one by default.
    """

    def __init__(self, name: str, work: Callable[[list[Request]], None], most: BatchLimit | None = None) -> None:
        self._work = work
        self._most = most or BatchLimit(1)
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def stalled_seconds(self) -> float:
        """How long the present piece of work has been going on; 0 where there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Work on a thread of its own until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the present piece of work; what waits is left undone."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, requests: Sequence[Request]) -> None:
        """Let the requests be worked on."""
        with self._changed:
            self._waiting.extend(requests)
            self._changed.notify()
        if not self._thread.is_alive():
            while self._waiting and not self._stopping:
                self._work(self._take())

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                batch = self._take()
            self._busy_since = time.monotonic()
            self._work(batch)
            self._busy_since = None

    def _take(self) -> list[Request]:
        return [self._waiting.popleft() for _ in range(min(self._most.allowed, len(self._waiting)))]
