"""Who runs next. No torch, no threads: called by the engine's thread alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .request import Request

PATIENCE = 8
"""Interactive requests that may go ahead of a batch request that waits; the next place is the batch request's."""


class Scheduler:
    """Waiting requests, interactive before batch and first come first served within each, and the active ones.

    Neither lane starves the other: batch requests leave one place free where there are several, and a batch request
    waits for `PATIENCE` interactive ones at most.

    Args:
        max_active: requests that may share a step.
    """

    def __init__(self, max_active: int) -> None:
        self.max_active = max_active
        self.active: list[Request] = []
        self._waiting: dict[str, deque[Request]] = {"interactive": deque(), "batch": deque()}
        self._batch_places = max(1, max_active - 1)
        self._overtaken = 0

    def __iter__(self) -> Iterator[Request]:
        """Every request that has no outcome yet, active ones first."""
        yield from self.active
        for lane in self._waiting.values():
            yield from lane

    @property
    def has_work(self) -> bool:
        """Whether any request is active or waiting."""
        return any(True for _ in self)

    def add(self, request: Request) -> None:
        """Let a request wait for its place."""
        self._waiting[request.priority].append(request)

    def admit(self) -> list[Request]:
        """Give waiting requests the free places, and return those that got one."""
        admitted: list[Request] = []
        while len(self.active) < self.max_active and (request := self._next()) is not None:
            self.active.append(request)
            admitted.append(request)
        return admitted

    def remove(self, request: Request) -> None:
        """Forget a request, active or waiting; its place is free at once."""
        for place in (self.active, *self._waiting.values()):
            if request in place:
                place.remove(request)

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
        return sum(request.priority == "batch" for request in self.active) < self._batch_places
