"""The gate: lets a request in by its key, and bounds what its body may be, before anything of that body is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from omnifleet_shared.errors import (
    GatewayBusy,
    InvalidMessage,
    KeyRefused,
    MediaTooLarge,
    OmnifleetError,
    RequestTooSlow,
)
from omnifleet_shared.settings import MEBIBYTE
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..access.admission import Admission, Caller
from ..http_errors import answer
from ..page.routes import PATHS
from ..settings import GatewaySettings
from .logs import note
from .metrics import GatewayMetrics

OPEN_PATHS = {"/livez", "/readyz", "/openapi.json"}
"""What is shown to everybody, besides the pages: they hold nothing, and ask for a key themselves."""
FORM_OVERHEAD = MEBIBYTE
"""Bytes of a form besides its files."""
SLOWEST = 16_000
"""Bytes a second that a body has to come at."""


class Gate:
    """ASGI middleware. It stands before FastAPI because that reads bodies before it resolves dependencies.

    Args:
        app: what is behind it.
        settings: limits.
        metrics: counts the requests that are open.
        with_keys: whether API keys are asked for.
    """

    def __init__(self, app: ASGIApp, settings: GatewaySettings, metrics: GatewayMetrics, *, with_keys: bool) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._with_keys = with_keys
        self._open_paths = OPEN_PATHS | (PATHS if settings.gateway_page else set())
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(headers, receive, self._most_bytes(headers), self._settings.gateway_body_patience)

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and body.is_pending:
                # What is left of the body is not waited for.
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            with self._counted():
                scope["state"]["caller"] = await self._admit(scope, headers)
                body.check_length()
                await self._app(scope, body.receive, send_and_close)
        except OmnifleetError as error:  # of the gate: those behind it are answered there
            await answer(error)(scope, receive, send_and_close)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        most = self._settings.gateway_max_requests
        if self._open >= most:
            raise GatewayBusy(f"{most} requests are open already", None, "Try again later", {"retry_after": 5})
        self._open += 1
        self._metrics.open_requests.set(self._open)
        try:
            yield
        finally:
            self._open -= 1
            self._metrics.open_requests.set(self._open)

    async def _admit(self, scope: Scope, headers: Headers) -> Caller:
        if not self._with_keys:
            return Caller()
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text.strip():
            raise KeyRefused("no API key was sent", "Authorization", "Send Authorization: Bearer of_…")
        # Of the application's state: it lives with the event loop, which this object does not.
        admission: Admission = scope["app"].state.backend.admission
        caller = await admission.admit(text.strip())
        assert caller.key is not None
        note(key_id=caller.key.id, tenant=caller.tenant)
        return caller

    def _most_bytes(self, headers: Headers) -> int:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in ("multipart/form-data", "application/octet-stream"):
            return self._settings.max_input_bytes + FORM_OVERHEAD
        return self._settings.gateway_max_json


class _Body:
    """The body of one request, as far as it may go."""

    def __init__(self, headers: Headers, receive: Receive, most: int, patience: float) -> None:
        self._length = headers.get("content-length")
        self._receive = receive
        self._most = most
        self._patience = patience
        self._begun = time.monotonic()
        self._bytes = 0
        self._ended = self._length in (None, "0") and "transfer-encoding" not in headers

    @property
    def is_pending(self) -> bool:
        """Whether some of it has not been read."""
        return not self._ended

    def check_length(self) -> None:
        """Refuse a body by its announced length. Raises MediaTooLarge and InvalidMessage."""
        length = self._length
        if length is None:
            return
        if not (length.isascii() and length.isdigit()):
            raise InvalidMessage("this is no length", "Content-Length", "Give the body's bytes as a number")
        # Not int() of everything: it refuses numbers of thousands of digits with an error of its own.
        if len(length) > 18 or int(length) > self._most:
            raise self._too_large()

    async def receive(self) -> Message:
        """Receive the next part. Raises MediaTooLarge and RequestTooSlow; waits for the caller's end afterwards."""
        if self._ended:
            return await self._receive()
        left = self._patience + self._bytes / SLOWEST - (time.monotonic() - self._begun)
        try:
            async with asyncio.timeout(max(left, 0)):
                message = await self._receive()
        except TimeoutError as error:
            problem = f"only {self._bytes:,} bytes of the body came in {time.monotonic() - self._begun:.0f} s"
            raise RequestTooSlow(problem, "body", "Send it faster, or a shorter one") from error
        self._bytes += len(message.get("body", b""))
        self._ended = not message.get("more_body", False)
        if self._bytes > self._most:
            raise self._too_large()
        return message

    def _too_large(self) -> MediaTooLarge:
        remedy = "Send media as files (multipart/form-data), or a shorter or compressed recording"
        details = {"limit": self._most}
        return MediaTooLarge(f"the body is larger than {self._most:,} bytes", "body", remedy, details)
