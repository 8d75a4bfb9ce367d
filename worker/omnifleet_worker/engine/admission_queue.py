"""One kind's line for its places."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .request import Request

PATIENCE = 8
"""Interactive requests that may go ahead of a batch request that waits; the next place is the batch request's."""


class Line:
    """Interactive requests before batch requests, first come first served within each.

    Neither starves the other: batch requests leave one place free where there are several, and a batch request waits
    for `PATIENCE` interactive ones at most.

    Args:
        places: requests that may hold a place at the same time.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._batch_places = max(1, places - 1)
        self._placed: list[Request] = []
        self._waiting: dict[str, deque[Request]] = {"interactive": deque(), "batch": deque()}
        self._overtaken = 0

    @property
    def waiting(self) -> Iterator[Request]:
        """Requests without a place, interactive ones first."""
        for lane in self._waiting.values():
            yield from lane

    def add(self, request: Request) -> None:
        """Let a request wait for its place."""
        self._waiting[request.priority].append(request)

    def admit(self) -> list[Request]:
        """Give waiting requests the free places, and return those that got one."""
        admitted: list[Request] = []
        while len(self._placed) < self._places and (request := self._next()) is not None:
            self._placed.append(request)
            admitted.append(request)
        return admitted

    def leave(self, request: Request) -> None:
        """The request needs a place no longer, or waits for one no longer."""
        for queue in (self._placed, *self._waiting.values()):
            if request in queue:
                queue.remove(request)

    def _next(self) -> Request | None:
        interactive, batch = self._waiting["interactive"], self._waiting["batch"]
        if batch and self._has_batch_place() and (not interactive or self._overtaken >= PATIENCE):
            self._overtaken = 0
            return batch.popleft()
        if not interactive:
            return None
        self._overtaken = self._overtaken + 1 if batch else 0
        return interactive.popleft()

    def _has_batch_place(self) -> bool:
        return sum(request.priority == "batch" for request in self._placed) < self._batch_places
