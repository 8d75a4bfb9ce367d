"""`AsyncClient.batch`: the same stream of outcomes as `Client.batch`, awaited one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class AsyncStream(Generic[T]):
    """What a blocking iterable gives, in an event loop. It is pulled on a thread of its own, one item at a time.

    Args:
        items: iterated on the thread, and only as far as the loop has asked.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._wanted = threading.Semaphore(0)
        self._stopped = False

    async def outcomes(self) -> AsyncGenerator[T]:
        """The items. What the iterable raises is raised here. Left early, it ends with the item under way."""
        loop, arrivals = asyncio.get_running_loop(), asyncio.Queue[Future[T]]()

        def tell(arrival: Future[T]) -> None:
            if not self._stopped:
                loop.call_soon_threadsafe(arrivals.put_nowait, arrival)

        # A daemon: a loop that is left early does not keep the process alive for the job that is under way.
        threading.Thread(target=self._pull, args=(tell,), name="omnifleet-batch", daemon=True).start()
        try:
            while True:
                self._wanted.release()
                arrival = await arrivals.get()
                if isinstance(arrival.exception(), _End):
                    return
                yield arrival.result()
        finally:
            self._stopped = True
            self._wanted.release()

    def _pull(self, tell: Callable[[Future[T]], None]) -> None:
        iterator = iter(self._items)
        while self._wanted.acquire() and not self._stopped:
            arrival: Future[T] = Future()
            try:
                arrival.set_result(next(iterator))
            except StopIteration:
                arrival.set_exception(_End())
            except BaseException as error:  # the loop's to handle, whatever it is
                arrival.set_exception(error)
            tell(arrival)
        # What was begun of the iterable is closed with its last reference, on this thread.


class _End(Exception):
    """There are no more items."""
