"""A blocking iterable in an event loop: `AsyncClient.batch` gives the outcomes of `Client.batch` through it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class ThreadedIterator(Generic[T]):
    """Iterates over a blocking iterable on a thread of its own, one item at a time, for an event loop.

    Args:
        items: iterated on the thread, and only as far as the loop has requested.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = items
        self._requested = threading.Semaphore(0)
        self._stopped = False

    async def items(self) -> AsyncGenerator[T]:
        """Iterate, raising what the iterable raises. Where it is left early, the thread ends after the current item."""
        loop, arrivals = asyncio.get_running_loop(), asyncio.Queue[Future[T]]()

        def put(arrival: Future[T]) -> None:
            if not self._stopped:
                loop.call_soon_threadsafe(arrivals.put_nowait, arrival)

        # A daemon: a loop that is left early does not keep the process alive for the current item.
        threading.Thread(target=self._pull, args=(put,), name="omnifleet-batch", daemon=True).start()
        try:
            while True:
                self._requested.release()
                arrival = await arrivals.get()
                if isinstance(arrival.exception(), _End):
                    return
                yield arrival.result()
        finally:
            self._stopped = True
            self._requested.release()

    def _pull(self, put: Callable[[Future[T]], None]) -> None:
        iterator = iter(self._items)
        while self._requested.acquire() and not self._stopped:
            arrival: Future[T] = Future()
            try:
                arrival.set_result(next(iterator))
            except StopIteration:
                arrival.set_exception(_End())
            except BaseException as error:  # the loop's to handle, whatever it is
                arrival.set_exception(error)
            put(arrival)
        # The iterator is closed with its last reference, on this thread.


class _End(Exception):
    """There are no more items."""
