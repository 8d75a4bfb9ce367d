"""What an engine tells whoever watches it. No torch, no queue."""

from __future__ import annotations

from typing import Literal, Protocol

Work = Literal["prepare", "diffusion", "chat", "finish"]
"""Conditioning and prefill; one step of clips; one token of answers; decoding clips and giving answers out."""


class EngineObserver(Protocol):
    """Told of the engine's work as it is done, on the thread that does it: it must be quick, and must not raise."""

    def worked(self, work: Work, requests: int, seconds: float, device_seconds: float) -> None:
        """One call of the model for so many requests at once came to its end.

        Args:
            work: what was done.
            requests: that shared the call.
            seconds: from its beginning to its end; of a step, what the device took for it.
            device_seconds: that the device was at it; the call's own time where the device does not tell.
        """
        ...

    def hosted(self, seconds: float) -> None:
        """The engine's thread was at work for so long, not counting its waits for the device and for requests."""
        ...

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        """Such a call raised. Of several requests each half is tried again, of one the error is its outcome."""
        ...


class NoObserver:
    """Nobody watches."""

    def worked(self, work: Work, requests: int, seconds: float, device_seconds: float) -> None:
        """Nothing."""

    def hosted(self, seconds: float) -> None:
        """Nothing."""

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        """Nothing."""
