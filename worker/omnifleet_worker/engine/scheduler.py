"""Who runs next. No torch, no threads: called by the engine's thread alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .request import Request


class Scheduler:
    """Waiting requests, interactive before batch and first come first served within each, and the active ones.

    Args:
        max_active: requests that may share a step.
    """

    def __init__(self, max_active: int) -> None:
        self.max_active = max_active
        self.active: list[Request] = []
        self._waiting: dict[str, deque[Request]] = {"interactive": deque(), "batch": deque()}

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
        for lane in self._waiting.values():
            while lane and len(self.active) < self.max_active:
                admitted.append(lane.popleft())
                self.active.append(admitted[-1])
        return admitted

    def remove(self, request: Request) -> None:
        """Forget a request, active or waiting; its place is free at once."""
        for place in (self.active, *self._waiting.values()):
            if request in place:
                place.remove(request)
