"""OpenAI's event streams: what a job made, as events, with signs of life while it is made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from omnifleet_shared.errors import OmnifleetError
from pydantic_core import to_json

from ...async_handle import AsyncJobHandle
from ..http_errors import error_record

PING = 15.0
"""Seconds after which a silent stream shows that it lives."""
Events = Iterable[Mapping[str, Any]]


def stream_outcome(
    job: AsyncJobHandle[Any], make_events: Callable[[Any], Awaitable[Events]], *, cancel: bool
) -> StreamingResponse:
    """Answer with a job's result as events.

    Args:
        job: what is waited for.
        make_events: makes the events of its result; each has its `type`.
        cancel: stop the job where the caller hangs up.
    """
    return EventSourceResponse(_outcome(job, make_events, cancel=cancel), headers={"Cache-Control": "no-cache"})


async def _outcome(
    job: AsyncJobHandle[Any], make_events: Callable[[Any], Awaitable[Events]], *, cancel: bool
) -> AsyncGenerator[bytes]:
    result = asyncio.ensure_future(job.result(cancel_job=cancel))
    try:
        while not (await asyncio.wait({result}, timeout=PING))[0]:
            yield KEEPALIVE_COMMENT
        for event in await make_events(result.result()):
            yield format_sse_event(data_str=to_json(event).decode())
    except OmnifleetError as error:
        yield format_sse_event(event="error", data_str=to_json({"error": error_record(error)}).decode())
    finally:
        result.cancel()
        await asyncio.gather(result, return_exceptions=True)
