"""What an asyncio client does beside its event loop: a few threads for what blocks, and tasks that outlive a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from omnifleet_shared.errors import OmnifleetError

P = ParamSpec("P")
R = TypeVar("R")
THREADS = 4
"""Requests that upload and send at once; further ones wait for a thread."""


class Aside:
    """Of one client. It belongs to the event loop that first uses it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="omnifleet")
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def check_loop(self) -> None:
        """Raise RuntimeError in another event loop than the first one: connections cannot change theirs."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one AsyncClient for each loop")

    async def run(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do blocking work on a thread. A caller that is cancelled no longer waits for it; it goes on if it began."""
        self.check_loop()
        context = copy_context()  # of a trace, say
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: context.run(work, *args, **kwargs)
        )

    async def finish(self, work: Coroutine[Any, Any, None]) -> None:
        """See some work through, even where the caller is cancelled meanwhile. What fails in it is let go."""

        async def quietly() -> None:
            with suppress(OmnifleetError):
                await work

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for whatever is on its way."""
        await asyncio.gather(*self._tasks)
        # It waits for threads that may be uploading.
        await asyncio.to_thread(self._threads.shutdown)
