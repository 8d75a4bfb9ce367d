"""How much the engine does at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from .request import Kind, Request

REGROW_AFTER = 100
"""Good rounds after which one more request is tried at once, where memory ran out before."""


@dataclass(frozen=True, kw_only=True)
class EngineLimits:
    """Set once, when the checkpoint is loaded.

    Attributes:
        clips: that share a diffusion step.
        chats: that share a token's step.
        speeches: texts that are said at the same time by a model that speaks a text as a whole; each takes its own
            steps, in turn.
        decoded: clips that are decoded to audio at once.
        memory: bytes that all requests together may hold from their preparation to their release; None where nothing
            is known of it.
    """

    clips: int = 0
    chats: int = 0
    speeches: int = 0
    decoded: int = 1
    memory: int | None = None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kinds of requests that there are places for."""
        return tuple(kind for kind, places in self._places.items() if places)

    def places(self, kind: Kind) -> int:
        """Requests of a kind that may be active."""
        return self._places[kind]

    @property
    def shared(self) -> int:
        """Most requests that are active at once, of the kind that has most work: clips, where there are any."""
        return self.clips or self.speeches or self.chats

    def stepped(self, kind: Kind) -> int:
        """Requests of a kind that may share a step."""
        return 1 if kind == "speech" else self.places(kind)

    def finished(self, kind: Kind) -> int:
        """Requests of a kind that are finished at once."""
        return self.decoded if kind == "diffusion" else self.stepped(kind)

    @property
    def _places(self) -> dict[Kind, int]:
        return {"diffusion": self.clips, "chat": self.chats, "speech": self.speeches}


class MemoryBudget:
    """Counts what requests hold of the device's memory, before they allocate it and until it is free again.

    Args:
        limit: bytes; None for no limit.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._held: dict[Request, int] = {}

    @property
    def holders(self) -> Collection[Request]:
        """Requests that hold memory, in the order in which they were admitted."""
        return self._held.keys()

    @property
    def reserved(self) -> int:
        """Bytes that are held or promised."""
        return sum(self._held.values())

    def fits(self, request: Request) -> bool:
        """Whether the most that a request may need is left; for one alone that has to do."""
        return self._limit is None or not self._held or self.reserved + self._most(request) <= self._limit

    def reserve(self, request: Request) -> None:
        """Promise a request the most that it may need."""
        self._held[request] = self._most(request)

    def settle(self, request: Request) -> None:
        """Count a request that is prepared with what it holds."""
        self._held[request] = request.cost

    def free(self, request: Request) -> bool:
        """Forget a request; gives whether it held anything."""
        return self._held.pop(request, None) is not None

    def _most(self, request: Request) -> int:
        # Where it cannot be told before, it may be all there is.
        return request.most_cost if request.most_cost is not None else self._limit or 0


class BatchLimit:
    """How many requests are done at once: fewer once memory ran out, and more again, one by one, as it goes well."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._allowed = most
        self._good_rounds = 0

    @property
    def allowed(self) -> int:
        """Requests at once, for now."""
        return self._allowed

    def split(self, requests: Sequence[Request]) -> list[list[Request]]:
        """The requests in batches that are allowed."""
        return [list(requests[start : start + self._allowed]) for start in range(0, len(requests), self._allowed)]

    def ran_out(self, size: int) -> None:
        """There was no memory for so many."""
        self._allowed, self._good_rounds = max(1, size // 2), 0

    def went_well(self) -> None:
        """A round was done as it was split."""
        if self._allowed == self._most:
            return
        self._good_rounds += 1
        if self._good_rounds == REGROW_AFTER:
            self._allowed, self._good_rounds = self._allowed + 1, 0
