"""OpenAI's event streams: what a job makes, as events, with signs of life while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from omnifleet_shared.errors import OmnifleetError
from pydantic_core import to_json

from ..http_errors import error_record

PING = 15.0
"""Seconds after which a silent stream shows that it lives."""
EVENT_STREAM = "text/event-stream"
Events = AsyncGenerator[Mapping[str, Any]]
"""Each has its `type`."""


async def server_sent(events: Events) -> AsyncGenerator[bytes]:
    """Write events as server-sent ones. An error of the job is the last of them, `error`, in OpenAI's shape."""
    async with aclosing(events):
        coming = asyncio.ensure_future(anext(events, None))
        try:
            while True:
                while not (await asyncio.wait({coming}, timeout=PING))[0]:
                    yield KEEPALIVE_COMMENT
                if (event := coming.result()) is None:
                    return
                yield format_sse_event(data_str=to_json(event).decode())
                coming = asyncio.ensure_future(anext(events, None))
        except OmnifleetError as error:
            yield format_sse_event(event="error", data_str=to_json({"error": error_record(error)}).decode())
        finally:
            # Before the generator is closed, which cannot be while it runs.
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
