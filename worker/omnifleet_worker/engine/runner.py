"""What an engine runs. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from .request import Kind, Request


class LaunchedWork(Protocol):
    """Work of the device that was launched, and may not be done yet."""

    @property
    def done(self) -> bool:
        """Whether it is."""
        ...

    def wait(self) -> float:
        """Wait until it is done; the seconds that the device took for it."""
        ...


class ModelRunner(Protocol):
    """The tensor side. Its methods raise OmnifleetError for what is the request's or the device's fault.

    `advance`, `is_done` and `release` are called on the engine's thread; `prepare` and `finish` on threads beside it,
    one for each kind of request and each of the two.
    """

    def prepare(self, request: Request) -> LaunchedWork | None:
        """Do everything before the first step: conditioning and noise, or the prefill of an answer.

        Sets the request's `cost`. Where it raised, it may be called again.

        Returns:
            The device's part of it, which is done; None where there is no such thing.
        """
        ...

    def advance(self, batch: Sequence[Request]) -> LaunchedWork | None:
        """Launch one step of requests of one kind. Where it raises, it is called again for parts of the batch.

        Returns:
            The step, which may not be done yet; None where it is.
        """
        ...

    def is_done(self, request: Request) -> bool:
        """Whether the last step was launched."""
        ...

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """The outcomes of requests of one kind that are done, in order. Where it raises, as `advance`."""
        ...

    def release(self, request: Request) -> None:
        """Forget the request's tensors. Called once for every request, prepared or not; and once more for each time
        that it had to give its memory back, after which it is prepared anew."""
        ...


@runtime_checkable
class WeighingRunner(Protocol):
    """A runner that knows what a request needs before it is prepared; one that does not prepares requests alone."""

    def weigh(self, request: Request) -> int:
        """Return the most bytes of the device's memory that the request may hold until it is released. Quick."""
        ...


@dataclass(frozen=True)
class LaunchedStep:
    """A step that was launched."""

    kind: Kind
    batch: Sequence[Request]
    work: LaunchedWork


@dataclass(frozen=True)
class Done:
    """Work that was done when it was launched."""

    seconds: float
    done: bool = True

    def wait(self) -> float:
        """See `LaunchedWork`."""
        return self.seconds
