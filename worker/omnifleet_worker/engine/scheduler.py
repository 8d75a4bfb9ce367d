"""Who runs next. No torch, no threads: called by the engine's thread alone."""

from __future__ import annotations

from collections.abc import Iterator

from .admission_queue import PATIENCE, AdmissionQueue
from .limits import EngineLimits, MemoryBudget
from .observer import Work
from .request import Kind, Request


class Scheduler:
    """Every request from its arrival to its outcome: it waits, is prepared, takes steps, and is finished.

    Clips and answers stand in lines of their own, so that neither takes the other's places. From its admission to its
    last step a request holds a place, and until it is released the memory that was reserved for it before it was
    prepared. A request that finds no memory all the same is parked: it keeps what it has, and goes on where it was once
    another has left; meanwhile nobody is admitted. Where only parked ones are left, the last to come gives its memory
    back and begins anew, so that the first is alone in the end.

    Args:
        limits: places of each kind, and the memory that requests may hold together.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self._lines: dict[Kind, AdmissionQueue] = {kind: AdmissionQueue(limits.places(kind)) for kind in limits.kinds}
        self._memory = MemoryBudget(limits.memory)
        self._preparing: list[Request] = []
        self._stepping: list[Request] = []
        self._finishing: list[Request] = []
        self._parked: dict[Request, Work] = {}
        self._is_tight = False
        self._someone_left = False
        self._hungry: Request | None = None
        self._overtaken = 0

    def __iter__(self) -> Iterator[Request]:
        """Every request that has no outcome yet; those that wait for a place come last."""
        yield from [*self._finishing, *self._stepping, *self._preparing, *self._parked]
        for line in self._lines.values():
            yield from line.waiting

    @property
    def has_work(self) -> bool:
        """Whether any request is without an outcome."""
        return any(True for _ in self)

    @property
    def reserved_memory(self) -> int:
        """Bytes that requests hold or were promised."""
        return self._memory.reserved

    @property
    def kinds(self) -> list[Kind]:
        """Kinds with requests that can take a step."""
        return [kind for kind in self._lines if self.ready(kind)]

    def ready(self, kind: Kind) -> list[Request]:
        """Requests of a kind that can take a step, in the order of their admission."""
        return [request for request in self.stepping(kind) if not request.is_held]

    def stepping(self, kind: Kind) -> list[Request]:
        """Requests of a kind that are prepared and have steps to take; some may be held."""
        return [request for request in self._stepping if request.kind == kind]

    def is_beside(self, request: Request) -> bool:
        """Whether a thread beside the engine's has the request: it is being prepared or finished."""
        return request in self._preparing or self.is_finishing(request)

    def is_finishing(self, request: Request) -> bool:
        """Whether all of its steps are taken."""
        return request in self._finishing

    def add(self, request: Request) -> None:
        """Let a request wait for its place, and for the memory of its `most_cost`."""
        self._lines[request.kind].add(request)

    def admit(self) -> list[Request]:
        """Give waiting requests the free places and reserve their memory; those that got both are to be prepared."""
        admitted: list[Request] = []
        while (request := self._next()) is not None:
            self._lines[request.kind].place()
            self._memory.reserve(request)
            admitted.append(request)
        self._preparing += admitted
        return admitted

    def prepared(self, request: Request) -> None:
        """It can take its first step, and what it holds is known."""
        self._preparing.remove(request)
        self._memory.settle(request)
        self._stepping.append(request)

    def finish(self, request: Request) -> None:
        """All its steps are taken: its place is free."""
        self._stepping.remove(request)
        self._lines[request.kind].leave(request)
        self._finishing.append(request)

    def park(self, request: Request, work: Work) -> Request | None:
        """Park a request that found no memory until another has left; `work` is what it is to go on with.

        Returns:
            The request that is to be released and `restart`ed now, as nobody is left who could leave; else None.
        """
        self._forget(request)
        self._parked[request] = work
        self._is_tight, self._someone_left = True, False
        return self._parked_in_order()[-1] if self._is_idle else None

    def restart(self, request: Request) -> None:
        """A parked request gave back what it had: it waits for its place and its memory anew, before all others."""
        self._parked.pop(request)
        self._memory.free(request)
        self._lines[request.kind].leave(request)
        self._lines[request.kind].add_first(request)

    def resume(self) -> dict[Request, Work]:
        """Parked requests that go on now, with what they go on with; those that only step do so by themselves."""
        if not self._parked or not (self._someone_left or self._is_idle):
            return {}
        self._someone_left = False
        request = self._parked_in_order()[0]
        work = self._parked.pop(request)
        self._stage(work).append(request)
        return {request: work}

    def is_alone(self, request: Request) -> bool:
        """Whether nobody else holds memory: what fails now for want of it would fail again."""
        return all(other is request for other in self._memory.holders)

    def remove(self, request: Request) -> None:
        """Forget a request wherever it is; its place is free at once, its memory when it is released."""
        self._forget(request)
        self._lines[request.kind].leave(request)

    def released(self, request: Request) -> None:
        """The request holds nothing any more: one that is parked goes on, or else others are admitted again."""
        if not self._memory.free(request):
            return
        if self._parked:
            self._someone_left = True
        else:
            self._is_tight = False

    def _next(self) -> Request | None:
        """The next request for which there are a place and memory.

        One that waits for memory lets `PATIENCE` of the other kind pass, and then nobody.
        """
        if self._is_tight:
            return None
        turns = [request for line in self._lines.values() if (request := line.next()) is not None]
        if self._hungry not in turns:
            self._hungry, self._overtaken = None, 0
        for request in sorted(turns, key=lambda one: one is not self._hungry):
            if self._memory.fits(request):
                self._overtaken += request is not self._hungry
                return request
            if self._hungry is None:
                self._hungry, self._overtaken = request, 0
            if self._overtaken >= PATIENCE:
                return None
        return None

    def _forget(self, request: Request) -> None:
        self._parked.pop(request, None)
        for stage in (self._preparing, self._stepping, self._finishing):
            if request in stage:
                stage.remove(request)

    def _stage(self, work: Work) -> list[Request]:
        stages: dict[Work, list[Request]] = {"prepare": self._preparing, "finish": self._finishing}
        return stages.get(work, self._stepping)

    def _parked_in_order(self) -> list[Request]:
        return [request for request in self._memory.holders if request in self._parked]

    @property
    def _is_idle(self) -> bool:
        return all(request in self._parked for request in self._memory.holders)
