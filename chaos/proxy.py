"""A TCP proxy with faults: connections that break, fall silent, lose requests or replies, or are refused by S3."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from support.services import free_port

Trouble = Literal["cut", "half-open", "request-loss", "reply-loss", "refused"]
"""What is wrong with a proxy's connections for a while."""
Direction = Literal["request", "reply"]
CHUNK = 65_536
LOSS = 0.1
"""Share of requests, or of replies, that are lost while they get lost."""
FORBIDDEN = (
    b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>InvalidAccessKeyId</Code>"
    b"<Message>There is no such access key.</Message></Error>"
)
REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(FORBIDDEN), FORBIDDEN)
)
"""How S3 answers wrong credentials."""


class Proxy:
    """Forwards one port's connections to another port, except for what its troubles do to them.

    Troubles may overlap. While there is none, it forwards every byte.

    Args:
        target: port of this machine that it leads to.
        rng: decides what gets lost.
    """

    def __init__(self, target: int, rng: random.Random) -> None:
        self.port = free_port()
        self._target = target
        self._rng = rng
        self._troubles: Counter[Trouble] = Counter()
        self._open: set[_Connection] = set()

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Forward until the end of the block, and break what is open then."""
        with socket.create_server(("127.0.0.1", self.port), backlog=256) as listener:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            try:
                yield self
            finally:
                self._troubles["cut"] += 1
                _shut(listener)
                self._break_all()

    def begin(self, trouble: Trouble) -> None:
        """Make trouble until `end`. Connections that it breaks or silences stay so."""
        self._troubles[trouble] += 1
        if trouble == "cut":
            self._break_all()
        elif trouble == "half-open":
            for connection in list(self._open):
                connection.silent = True

    def end(self, trouble: Trouble) -> None:
        """End what `begin` began."""
        self._troubles[trouble] -= 1

    def loses(self, direction: Direction) -> bool:
        """Draw whether the next request or reply is lost."""
        trouble: Trouble = "request-loss" if direction == "request" else "reply-loss"
        return self._troubles[trouble] > 0 and self._rng.random() < LOSS

    def cut(self, data: bytes) -> bytes:
        """Draw how much of what is lost arrives all the same: nothing, or a part."""
        return data[: self._rng.randrange(len(data))] if self._rng.random() < 0.5 else b""

    @property
    def refuses(self) -> bool:
        """Whether requests are answered with S3's refusal of wrong credentials."""
        return self._troubles["refused"] > 0

    def _break_all(self) -> None:
        for connection in list(self._open):
            connection.shut()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        # A target that is not there breaks the connection, not the proxy.
        with near, suppress(OSError):
            if self._troubles["cut"]:
                return
            with socket.create_connection(("127.0.0.1", self._target)) as far:
                connection = _Connection(self, near, far)
                connection.silent = self._troubles["half-open"] > 0
                self._open.add(connection)
                connection.carry()
                self._open.discard(connection)


class _Connection:
    """A client's connection, and the one behind it."""

    def __init__(self, proxy: Proxy, near: socket.socket, far: socket.socket) -> None:
        self.silent = False
        """Whether it is half-open: what is sent goes nowhere, and neither end hears of it."""
        self._proxy = proxy
        self._near = near
        self._far = far

    def carry(self) -> None:
        """Carry both directions until the connection ends."""
        for end in (self._near, self._far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self._pump, args=(self._far, self._near, "reply"), daemon=True)
        back.start()
        self._pump(self._near, self._far, "request")
        back.join()

    def shut(self) -> None:
        """Break it at both ends."""
        _shut(self._near)
        _shut(self._far)

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        with suppress(OSError):
            while data := source.recv(CHUNK):
                if self.silent:
                    continue
                if direction == "request" and self._proxy.refuses:
                    self._refuse()
                    break
                if self._proxy.loses(direction):
                    sink.sendall(self._proxy.cut(data))
                    break
                sink.sendall(data)
        self.shut()

    def _refuse(self) -> None:
        self._near.sendall(REFUSAL)
        self._near.shutdown(socket.SHUT_WR)
        # Closed with something unread, the connection would be reset, and the client might not read the answer.
        self._near.settimeout(1)
        while self._near.recv(CHUNK):
            pass


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
