"""One kind's line for its places."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .request import Request

PATIENCE = 8
"""Interactive requests that may go ahead of a batch request that waits; the next place is the batch request's."""


class AdmissionQueue:
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
        self._turn: Request | None = None
        self._overtaken = 0

    @property
    def waiting(self) -> Iterator[Request]:
        """Requests without a place: the one whose turn it is, then interactive ones first."""
        if self._turn is not None:
            yield self._turn
        for lane in self._waiting.values():
            yield from lane

    def add(self, request: Request) -> None:
        """Let a request wait for its place."""
        self._waiting[request.priority].append(request)

    def add_first(self, request: Request) -> None:
        """Let a request wait that had its place before, ahead of all of its priority."""
        self._waiting[request.priority].appendleft(request)

    def next(self) -> Request | None:
        """The request whose turn it is, where a place is free; it keeps its turn until it is placed or leaves."""
        if len(self._placed) == self._places:
            return None
        self._turn = self._turn or self._choose()
        return self._turn

    def place(self) -> None:
        """Give the request whose turn it is its place."""
        assert self._turn is not None
        self._placed.append(self._turn)
        self._turn = None

    def leave(self, request: Request) -> None:
        """The request needs a place no longer, or waits for one no longer."""
        if self._turn is request:
            self._turn = None
        for queue in (self._placed, *self._waiting.values()):
            if request in queue:
                queue.remove(request)

    def _choose(self) -> Request | None:
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
