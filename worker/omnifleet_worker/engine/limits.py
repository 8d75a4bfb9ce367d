"""How much the engine does at once."""

from __future__ import annotations

from collections.abc import Sequence
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
        decoded: clips that are decoded to audio at once.
        memory: bytes that all active requests may hold together; None where nothing is known of it.
    """

    clips: int
    chats: int
    decoded: int = 1
    memory: int | None = None

    def places(self, kind: Kind) -> int:
        """Requests of a kind that may be active."""
        return self.clips if kind == "diffusion" else self.chats


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
