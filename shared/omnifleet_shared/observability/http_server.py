"""A small HTTP server for a process's own pages: health for Kubernetes, metrics for Prometheus."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from ..errors import InvalidSetting

Check = Callable[[], str | None]
"""Gives the reason why something is unhealthy, or None."""
REQUEST_TIMEOUT = 10
"""Seconds after which a client that sends no request is disconnected."""


class PageServer:
    """Serves `/metrics` and a page for each check, on threads of its own.

    Args:
        host: address to listen on.
        port: TCP port; 0 takes any that is free.
        registry: metrics to show.
        checks: health checks by path. A page is `ok` with status 200, or the check's reason with status 503.
        field: setting that the error names where it cannot listen.

    Raises:
        InvalidSetting: it cannot listen there.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, checks: Mapping[str, Check], field: str
    ) -> None:
        self._checks = dict(checks)
        self._metrics: Any = make_wsgi_app(registry)
        try:
            self._server = _listen(host, port, self._answer)
        except OSError as error:
            problem = f"nothing can listen on {host} port {port}: {error}"
            raise InvalidSetting(problem, field, "Choose a free port of this machine") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="http-pages", daemon=True)

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self._server.server_port)

    def start(self) -> None:
        """Start to answer requests, until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering, and close the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            pages: Iterable[bytes] = self._metrics(environ, start_response)
            return pages
        check = self._checks.get(path)
        if check is None:
            return _page(start_response, "404 Not Found", f"pages: {', '.join(['/metrics', *self._checks])}")
        reason = check()
        return _page(start_response, "200 OK" if reason is None else "503 Service Unavailable", reason or "ok")


class _QuietHandler(WSGIRequestHandler):
    timeout = REQUEST_TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: probes come every few seconds."""


def _listen(host: str, port: int, application: Any) -> Any:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    server = type("_Server", (ThreadingWSGIServer,), {"address_family": family})
    return make_server(host, port, application, server, _QuietHandler)


def _page(start_response: Any, status: str, text: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
