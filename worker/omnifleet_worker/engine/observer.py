"""What an engine tells whoever watches it. No torch, no queue."""

from __future__ import annotations

from typing import Literal, Protocol

Work = Literal["prepare", "diffusion", "chat", "finish"]
"""Conditioning and prefill; one step of clips; one token of answers; decoding clips and giving answers out."""


class EngineObserver(Protocol):
    """Told of the engine's work as it is done, on the thread that does it: it must be quick, and must not raise."""

    def worked(self, work: Work, requests: int, seconds: float) -> None:
        """One call of the model was made for so many requests at once."""
        ...

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        """Such a call raised. Of several requests each half is tried again, of one the error is its outcome."""
        ...


class NoObserver:
    """Nobody watches."""

    def worked(self, work: Work, requests: int, seconds: float) -> None:
        """Nothing."""

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        """Nothing."""
