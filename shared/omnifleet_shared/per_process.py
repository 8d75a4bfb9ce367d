"""Things that a forked process must not share with its parent: connections, threads, locks and event loops.

Servers import an application once and fork their workers (gunicorn with `--preload`, Celery's prefork pool, uwsgi, and
multiprocessing by `fork`). A child that went on with its parent's sockets would read the other's answers.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Makes a thing once in each process that uses it. Thread-safe.

    Args:
        make: makes it, at the first use in a process.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._lock = threading.Lock()
        _all.add(self)

    def get(self) -> T:
        """Return this process's own."""
        made = self._made
        if made:
            return made[0]
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]

    def made(self) -> T | None:
        """Return this process's own where it was made."""
        return next(iter(self._made), None)

    def begin_anew(self) -> None:
        """Forget what the parent made: this process was forked just now, and has one thread."""
        # The parent's is kept and not closed: what ends it might tell the server, or the parent's event loop. Its lock
        # may be held by a thread that this process has not.
        if self._made:
            _inherited.append(self._made)
        self._made, self._lock = [], threading.Lock()


_all: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()
_inherited: list[Any] = []


def _in_child() -> None:
    for one in list(_all):
        one.begin_anew()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork either
    os.register_at_fork(after_in_child=_in_child)
