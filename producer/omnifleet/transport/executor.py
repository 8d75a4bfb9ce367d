"""Threads for what blocks in an asyncio client, and tasks that outlive their caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.per_process import PerProcess

P = ParamSpec("P")
R = TypeVar("R")
THREADS = 4
"""Requests that are uploaded and sent at once; further ones wait for a thread."""


class _Own:
    """What belongs to one process."""

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="omnifleet")
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop: asyncio.AbstractEventLoop | None = None


class BlockingExecutor:
    """Runs an asyncio client's blocking calls on a few threads.

    It belongs to the event loop that first uses it, in each process: a forked one begins anew.
    """

    def __init__(self) -> None:
        self._own = PerProcess(_Own)

    def check_loop(self) -> None:
        """Raise RuntimeError in another event loop than this process's first one: connections cannot change theirs."""
        own, loop = self._own.get(), asyncio.get_running_loop()
        if own.loop is None:
            own.loop = loop
        if own.loop is not loop:
            raise RuntimeError("this client belongs to another event loop: make one AsyncClient for each loop")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a blocking function on a thread. It goes on, once begun, where its caller is cancelled."""
        self.check_loop()
        context = copy_context()  # the current trace span, say
        return await asyncio.get_running_loop().run_in_executor(
            self._own.get().threads, lambda: context.run(function, *args, **kwargs)
        )

    async def run_to_completion(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Await a coroutine to its end, even where the caller is cancelled. Its OmnifleetErrors are dropped."""

        async def quietly() -> None:
            with suppress(OmnifleetError):
                await coroutine

        task = asyncio.create_task(quietly())
        tasks = self._own.get().tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        await asyncio.shield(task)

    async def join(self) -> None:
        """Wait for the coroutines that run to completion: they may need connections that are closed next."""
        await asyncio.gather(*self._own.get().tasks)

    async def close(self) -> None:
        """Wait for all calls and coroutines, and end the threads."""
        await self.join()
        # It waits for threads that may be uploading.
        await asyncio.to_thread(self._own.get().threads.shutdown)
