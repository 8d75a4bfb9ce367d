"""The outermost layer: each request gets an id, a log line and its place in the metrics. Its span is FastAPI's own."""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from omnifleet_shared.observability import tracing as traces
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import note, request_fields
from .metrics import GatewayMetrics

logger = logging.getLogger(__name__)
REQUEST_ID = "x-request-id"
GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""An id that a caller may choose: it is logged and sent back."""
PROBES = {"/livez", "/readyz"}
"""They come every few seconds, and say nothing of the gateway's work."""
ABANDONED = 499
"""Status that is counted and logged where the caller hung up before the answer; nobody is sent it."""


class Telemetry:
    """ASGI middleware.

    Args:
        app: what is behind it.
        metrics: counts the requests.
    """

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        await _Exchange(self._app, self._metrics, scope).run(receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, scope: Scope) -> None:
        self._app, self._metrics, self._scope = app, metrics, scope
        given = Headers(scope=scope).get(REQUEST_ID, "")
        self._id = given if GIVEN_ID.fullmatch(given) else uuid.uuid4().hex
        self._status = ABANDONED
        self._begun = time.perf_counter()

    async def run(self, receive: Receive, send: Send) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = self._id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        token = request_fields.set({"request_id": self._id})
        traces.set_attribute("omnifleet.request_id", self._id)
        try:
            await self._app(self._scope, receive, send_with_id)
        finally:
            self._account(self._scope["method"])
            request_fields.reset(token)

    @property
    def _route(self) -> str:
        """The route's pattern. What leads nowhere is counted together: there is no end to such paths."""
        route: Any = self._scope.get("route")
        return getattr(route, "path", None) or "unmatched"

    def _account(self, method: str) -> None:
        seconds, route = time.perf_counter() - self._begun, self._route
        self._metrics.requests.labels(method if route != "unmatched" else "any", route, str(self._status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        # As it was sent, percent signs and all: a decoded line feed would begin a new line of the log.
        path = bytes(self._scope.get("raw_path") or b"").decode("ascii", "replace")[:200]
        note(method=method, route=route, status=self._status, seconds=round(seconds, 4))
        logger.info("%s %s %d", method, path, self._status, extra={"action": "request_answered"})
