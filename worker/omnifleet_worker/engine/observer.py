"""The interface by which an engine reports its work, for metrics and traces. No torch, no queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from .request import Request

Work = Literal["prepare", "diffusion", "chat", "speech", "finish"]
"""Conditioning and prefill; one step of clips; one token of answers; one piece of a text that is said; decoding clips
and giving answers out."""


class EngineObserver(Protocol):
    """Receives the engine's events on the thread that does the work: its methods must be quick, and must not raise."""

    def worked(self, work: Work, requests: int, seconds: float, device_seconds: float) -> None:
        """Record the end of one call of the model for a batch of requests.

        Args:
            work: kind of the call.
            requests: number of requests that shared the call.
            seconds: from its beginning to its end; of a step, the device's time for it.
            device_seconds: during which the device was busy with it; the call's own time where that is not known.
        """
        ...

    def hosted(self, seconds: float) -> None:
        """Record the engine thread's own time in seconds, without its waits for the device and for requests."""
        ...

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        """Record that such a call raised. A batch is tried again in halves; of one, the error is the outcome."""
        ...


def note_work(
    observer: EngineObserver, work: Work, batch: Sequence[Request], seconds: float, device_seconds: float
) -> None:
    """Notify the observer of a call of the model, and share the device's time for it among its requests."""
    for request in batch:
        request.device_seconds += device_seconds / len(batch)
    observer.worked(work, len(batch), seconds, device_seconds)


class NoObserver:
    """An observer that ignores every event; the default."""

    def worked(self, work: Work, requests: int, seconds: float, device_seconds: float) -> None:
        """Nothing."""

    def hosted(self, seconds: float) -> None:
        """Nothing."""

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        """Nothing."""
