"""One POST to a receiver, within a time: no redirects, no proxies, and only to an address that was checked."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic
from urllib.parse import urlsplit

from omnifleet_shared.webhooks.allow_list import CallbackHost, CallbackHosts


class NotDelivered(Exception):
    """Raised where the receiver did not accept the callback; the text says why, and holds no secret."""


def post_webhook(url: str, body: bytes, headers: Mapping[str, str], hosts: CallbackHosts, seconds: float) -> None:
    """Post a callback to its receiver.

    Args:
        url: where to.
        body: JSON.
        headers: beside those that every request has.
        hosts: that are allowed.
        seconds: for all of it, whatever the receiver does; looking its name up is not counted.

    Raises:
        CallbackRefused: the host, or the address that it has now, is not allowed.
        NotDelivered: anything but an answer of 2xx.
    """
    host = hosts.find(url)
    try:
        status = _exchange(host, url, body, headers, seconds)
    # ValueError: what http.client thinks of a URL that no browser would send.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotDelivered(f"{host.name} does not answer: {error or type(error).__name__}"[:300]) from error
    if not 200 <= status < 300:
        raise NotDelivered(f"{host.name} answered {status}")


def _exchange(host: CallbackHost, url: str, body: bytes, headers: Mapping[str, str], seconds: float) -> int:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    every = {"Host": parts.netloc, "Content-Type": "application/json", "User-Agent": "omnifleet", "Connection": "close"}
    with _connected(host, seconds) as stream:
        exchange = http.client.HTTPConnection(host.name, host.port)
        exchange.sock = stream
        exchange.request("POST", path, body, every | dict(headers))
        with exchange.getresponse() as answer:
            return answer.status


@contextmanager
def _connected(host: CallbackHost, seconds: float) -> Iterator[socket.socket]:
    """A stream to the host, encrypted for https, that is cut when its time is over."""
    # Looked up once: between a check and a second look the name may have changed its mind.
    addresses = host.addresses()
    until = monotonic() + seconds
    with ExitStack() as opened:
        stream = opened.enter_context(_dial(addresses, host.port, until))
        if host.scheme == "https":
            context = ssl.create_default_context()
            wrapped = context.wrap_socket(stream, server_hostname=host.name, do_handshake_on_connect=False)
            stream = opened.enter_context(wrapped)
        # A receiver that sends a byte now and then would outwait any timeout of the socket's own.
        timer = threading.Timer(max(until - monotonic(), 0), _cut, [stream])
        timer.daemon = True
        timer.start()
        opened.callback(timer.cancel)
        if isinstance(stream, ssl.SSLSocket):
            stream.do_handshake()
        yield stream


def _dial(addresses: list[str], port: int, until: float) -> socket.socket:
    for place, address in enumerate(addresses):
        left = max(until - monotonic(), 0.001) / (len(addresses) - place)
        try:
            return socket.create_connection((address, port), timeout=left)
        except OSError:
            if place == len(addresses) - 1:
                raise
    raise OSError("its name leads nowhere")


def _cut(stream: socket.socket) -> None:
    with suppress(OSError):
        # Of the plain socket: that of SSL would wait for, and then forget, the encryption that a reader is using.
        socket.socket.shutdown(stream, socket.SHUT_RDWR)
