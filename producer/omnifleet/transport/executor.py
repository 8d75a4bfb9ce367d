"""Threads for what blocks in an asyncio client, and tasks that outlive their caller."""

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
"""Requests that are uploaded and sent at once; further ones wait for a thread."""


class BlockingExecutor:
    """Runs an asyncio client's blocking calls on a few threads. It belongs to the event loop that first uses it."""

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

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a blocking function on a thread. It goes on, once begun, where its caller is cancelled."""
        self.check_loop()
        context = copy_context()  # the current trace span, say
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: context.run(function, *args, **kwargs)
        )

    async def run_to_completion(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Await a coroutine to its end, even where the caller is cancelled. Its OmnifleetErrors are dropped."""

        async def quietly() -> None:
            with suppress(OmnifleetError):
                await coroutine

        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def join(self) -> None:
        """Wait for the coroutines that run to completion: they may need connections that are closed next."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Wait for all calls and coroutines, and end the threads."""
        await self.join()
        # It waits for threads that may be uploading.
        await asyncio.to_thread(self._threads.shutdown)
