"""Connections of uvicorn that do not wait for headers for ever, and that end where an answer breaks off."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from .http_errors import BrokenOff


class PatientProtocol(H11Protocol):
    """Closes a connection whose request does not come to the end of its headers in time.

    Uvicorn's own limits begin with the first answer; until then a connection that sends a byte a minute costs its
    sender nothing. It also closes one whose answer breaks off (`BrokenOff`), which uvicorn would log as a fault.
    """

    patience: ClassVar[float]
    """Seconds from the first byte of a request, or from the connection, to the end of its headers."""
    _timer: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app: Any = self._breaking_off(self.app)

    def connection_made(self, transport: Any) -> None:
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._forget()
        super().connection_lost(exc)

    def _breaking_off(self, app: Any) -> ASGIApp:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            except BrokenOff:
                self.transport.close()  # what was sent arrives, and the end of the answer does not
                self.loop.call_later(self.patience, self.transport.abort)  # who does not read it is not waited for
                while (await receive())["type"] != "http.disconnect":
                    pass

        return serve

    @property
    def _is_serving(self) -> bool:
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def _watch(self) -> None:
        if self._is_serving:
            self._forget()  # a request is being served; its body has a limit of its own
        elif self._timer is None:
            self._timer = self.loop.call_later(self.patience, self._give_up)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if not self._is_serving:
            self.transport.close()
