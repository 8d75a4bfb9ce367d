"""Work for a caller: as long as he is there, and no longer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any, TypeVar

from fastapi.responses import StreamingResponse
from omnifleet_shared.errors import OmnifleetError
from starlette.types import Receive, Scope, Send

from ...async_handle import AsyncJobHandle
from ..backend import Backend
from ..http_errors import BrokenOff

logger = logging.getLogger(__name__)
T = TypeVar("T")


class HungUp(Exception):
    """Who waited for a job has hung up; nobody is there to be answered."""


async def attend(
    backend: Backend, receive: Receive, job: AsyncJobHandle[Any], work: Awaitable[T], *, cancel: bool
) -> T:
    """Do something with a job for a caller, as long as he is there.

    Args:
        backend: of this process.
        receive: of the caller's request; its connection is watched.
        job: what is worked on.
        work: what is done.
        cancel: stop the job where the caller hangs up. It goes on where this process is stopped.

    Raises:
        HungUp: the caller has hung up; the work is cancelled.
        What the work raises.
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_end_of(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if cancel:
            logger.info("who waited has hung up: the job is cancelled", extra={"action": "job_abandoned"})
            backend.metrics.hung_up.inc()
            await job.cancel()
        raise HungUp
    finally:
        for task in (working, gone):
            task.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


class JobStream(StreamingResponse):
    """Answers with what a job makes while it is made. A caller who hangs up cancels it, as one who waits does.

    Args:
        backend: of this process.
        job: what makes it.
        chunks: bytes as they come. Where they end with an error, the connection is closed before the answer's end.
        media_type: of them.
        cancel: stop the job where the caller hangs up.
    """

    def __init__(
        self,
        backend: Backend,
        job: AsyncJobHandle[Any],
        chunks: AsyncGenerator[bytes],
        media_type: str,
        *,
        cancel: bool,
    ) -> None:
        # The last one is for nginx, which would collect what is to be heard at once.
        headers = {"X-Job-ID": job.id, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(chunks, headers=headers, media_type=media_type)
        self._backend = backend
        self._job = job
        self._chunks = chunks
        self._cancel = cancel

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it. Raises BrokenOff."""
        try:
            async with aclosing(self._chunks):
                await attend(self._backend, receive, self._job, self.stream_response(send), cancel=self._cancel)
        except HungUp:
            logger.debug("a stream was left", extra={"action": "stream_left"})
        except OmnifleetError as error:
            logger.warning("a stream breaks off: %s", error, extra={"action": "stream_broken_off"})
            raise BrokenOff from error


async def _end_of(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
