"""Who runs next. No torch, no threads: called by the engine's thread alone."""

from __future__ import annotations

from collections.abc import Iterator

from .admission_queue import AdmissionQueue
from .limits import EngineLimits
from .observer import Work
from .request import Kind, Request

KINDS: tuple[Kind, ...] = ("diffusion", "chat")


class Scheduler:
    """Every request from its arrival to its outcome: it waits, is prepared, takes steps, and is finished.

    Clips and answers stand in lines of their own, so that neither takes the other's places. From its admission to its
    last step a request holds a place. Where memory does not suffice for all, a request is parked: it keeps what it has,
    and goes on where it was once another has left.

    Args:
        limits: places of each kind, and the memory that active requests may hold together.
    """

    def __init__(self, limits: EngineLimits) -> None:
        self._lines = {kind: AdmissionQueue(limits.places(kind)) for kind in KINDS}
        self._memory = limits.memory
        self._preparing: list[Request] = []
        self._stepping: list[Request] = []
        self._finishing: list[Request] = []
        self._parked: dict[Request, Work] = {}
        self._someone_left = False

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
    def kinds(self) -> list[Kind]:
        """Kinds with requests that can take a step."""
        return [kind for kind in KINDS if any(request.kind == kind for request in self._stepping)]

    def stepping(self, kind: Kind) -> list[Request]:
        """Requests of a kind that can take a step, in the order of their admission."""
        return [request for request in self._stepping if request.kind == kind]

    def is_beside(self, request: Request) -> bool:
        """Whether a thread beside the engine's has the request: it is being prepared or finished."""
        return request in self._preparing or self.is_finishing(request)

    def is_finishing(self, request: Request) -> bool:
        """Whether all of its steps are taken."""
        return request in self._finishing

    def add(self, request: Request) -> None:
        """Let a request wait for its place."""
        self._lines[request.kind].add(request)

    def admit(self) -> list[Request]:
        """Give waiting requests the free places; those that got one are to be prepared."""
        admitted = [request for line in self._lines.values() for request in line.admit()]
        self._preparing += admitted
        return admitted

    def prepared(self, request: Request) -> None:
        """It can take its first step, or is parked where its memory would be too much."""
        self._preparing.remove(request)
        if self._fits(request):
            self._stepping.append(request)
        else:
            self._parked[request] = request.kind

    def finish(self, request: Request) -> None:
        """All its steps are taken: its place is free."""
        self._stepping.remove(request)
        self._lines[request.kind].leave(request)
        self._finishing.append(request)
        self._someone_left = True

    def park(self, request: Request, work: Work) -> None:
        """Park a request until another has left; `work` is what it is to go on with."""
        self._forget(request)
        self._parked[request] = work
        self._someone_left = False

    def resume(self) -> dict[Request, Work]:
        """Parked requests that go on now, with what they go on with; those that only step do so by themselves."""
        resumed: dict[Request, Work] = {}
        while self._parked and (self._someone_left or self._is_idle):
            request, work = next(iter(self._parked.items()))
            if not self._fits(request):
                break
            del self._parked[request]
            resumed[request] = work
            self._stage(work).append(request)
            # Where memory is not known to suffice, one at a time: the next one when another leaves.
            self._someone_left = self._someone_left and self._memory is not None
        return resumed

    def is_alone(self, request: Request) -> bool:
        """Whether no other request is at work: what fails now for want of memory would fail again."""
        return all(other is request for other in [*self._preparing, *self._stepping, *self._finishing])

    def remove(self, request: Request) -> None:
        """Forget a request wherever it is; its place is free at once."""
        self._forget(request)
        self._lines[request.kind].leave(request)
        self._someone_left = True

    def _forget(self, request: Request) -> None:
        self._parked.pop(request, None)
        for stage in (self._preparing, self._stepping, self._finishing):
            if request in stage:
                stage.remove(request)

    def _stage(self, work: Work) -> list[Request]:
        stages: dict[Work, list[Request]] = {"prepare": self._preparing, "finish": self._finishing}
        return stages.get(work, self._stepping)

    @property
    def _is_idle(self) -> bool:
        return not (self._preparing or self._stepping or self._finishing)

    def _fits(self, request: Request) -> bool:
        held = sum(other.cost for other in self._stepping)
        return self._memory is None or not held or held + request.cost <= self._memory
