"""A request and its answer, on a connection that another thread can close at any moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock

from omnifleet_shared.errors import ModelServerUnavailable
from urllib3.connection import HTTPConnection


class Exchange:
    """What one text is asked for with: its tries, of which each has a connection of its own. Thread-safe.

    A server that hears its client hang up stops; nothing else tells it that nobody wants the answer any more.
    """

    def __init__(self) -> None:
        self._ended = Event()
        self._lock = Lock()
        self._socket: socket.socket | None = None

    def end(self) -> None:
        """Close the connection, whatever is waited for on it; there will be no other one."""
        self._ended.set()
        with self._lock:
            if self._socket is not None:
                with suppress(OSError):
                    # Not the method of a TLS socket, which takes away what another thread reads with.
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def wait(self, seconds: float) -> bool:
        """Wait for its end for so long; gives whether it came."""
        return self._ended.wait(seconds)

    @contextmanager
    def connected(self, connection: HTTPConnection) -> Iterator[None]:
        """Connect for the block, in which `end` closes the connection.

        Raises:
            ModelServerUnavailable: it was ended before; nobody reads the error.
            HTTPError, OSError: there is no connection.
        """
        self._check()
        try:
            connection.connect()
            with self._lock:
                self._socket = connection.sock
            self._check()  # only now: `end` closes those alone that it can see
            yield
        finally:
            with self._lock:
                self._socket = None
            connection.close()

    def _check(self) -> None:
        if self._ended.is_set():
            raise ModelServerUnavailable("nobody waits for the speech server's answer any more", None, "See to the job")
