"""The gateway's process: uvicorn, its pages for the cluster, and an end that answers who is still there."""

from __future__ import annotations

import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from omnifleet_shared.errors import InvalidSetting
from omnifleet_shared.observability.http_server import PageServer
from prometheus_client import CollectorRegistry

from .settings import GatewaySettings

logger = logging.getLogger(__name__)
NEEDED = ("fastapi", "uvicorn", "python_multipart", "pythonjsonlogger")
KEEP_ALIVE = 65
"""Seconds that an idle connection is kept: longer than load balancers do, so that they are not the ones to lose it."""
MOST_HEADERS = 32 * 1024
"""Bytes of a request's headers."""


def run_gateway(settings: GatewaySettings, host: str, port: int, *, with_keys: bool) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        InvalidSetting: its libraries are missing, nothing can listen there, or everybody would be let in from afar.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise InvalidSetting(f"{missing[0]} is not installed", "gateway", "pip install 'omnifleet[gateway]'")
    if not with_keys and not _is_loopback(host):
        remedy = "Leave out --without-keys and make keys (omnifleet keys add), or listen on --host 127.0.0.1"
        raise InvalidSetting(f"without keys, everybody who reaches {host} would be let in", "--without-keys", remedy)
    _serve(settings, host, port, with_keys=with_keys)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _serve(settings: GatewaySettings, host: str, port: int, *, with_keys: bool) -> None:
    # Of the extra, which the rest of the command line does without.
    import uvicorn

    from .app import create_app
    from .connection import PatientProtocol
    from .middleware.logs import configure_logging
    from .middleware.metrics import GatewayMetrics

    configure_logging(settings.log_format)
    metrics = GatewayMetrics()
    app = create_app(settings, metrics, with_keys=with_keys)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # First of all: streams would be waited for to the end of the grace.
            logger.info("stopping: requests are answered, streams end", extra={"action": "gateway_drains"})
            app.state.backend.drain()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        host,
        port,
        http=type("Protocol", (PatientProtocol,), {"patience": settings.gateway_body_patience}),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=int(settings.gateway_grace),
        h11_max_incomplete_event_size=MOST_HEADERS,
    )
    with _listening(host, port) as listener, _pages(settings, metrics.registry), _outliving_signals():
        Server(config).run([listener])


@contextmanager
def _outliving_signals() -> Iterator[None]:
    """Let uvicorn handle what ends it: it raises the signal again once it has ended well, which is not to kill."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        problem = f"nothing can listen on {host} port {port}: {error}"
        raise InvalidSetting(problem, "--port", "Choose a free port of this machine") from error
    with listener:
        # Inherited by its connections: asyncio sees to that only for sockets of its own making, and without it an
        # answer's body waits 40 ms for the caller to acknowledge its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener


@contextmanager
def _pages(settings: GatewaySettings, registry: CollectorRegistry) -> Iterator[None]:
    """Metrics, on a port that callers do not reach."""
    if settings.http_port is None:
        yield
        return
    pages = PageServer(
        settings.http_host, settings.http_port, registry, {"/livez": lambda: None}, "OMNIFLEET_HTTP_PORT"
    )
    pages.start()
    try:
        yield
    finally:
        pages.stop()
