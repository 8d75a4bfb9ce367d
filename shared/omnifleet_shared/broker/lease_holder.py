"""What the transport of a worker needs to know of the messages that the worker holds."""

from __future__ import annotations

from typing import Protocol

from .kinds import JobKind, Place
from .leases import LeasedMessage, Leases


class LeaseHolder(Protocol):
    """What a channel needs of the worker's lease renewer."""

    leases: Leases
    polled: frozenset[Place]
    """Places that the poll is for, which is on its way; none where no poll is."""

    @property
    def takes(self) -> bool:
        """Whether the worker accepts messages."""
        ...

    @property
    def has_room(self) -> bool:
        """Whether the worker may hold another message."""
        ...

    def room_for(self, place: Place) -> int:
        """How many more messages of a kind and priority the worker may hold."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether the worker holds no message."""
        ...

    @property
    def has_suspect(self) -> bool:
        """Whether the worker holds a suspect, so that it takes nothing else."""
        ...

    def claim_suspect(self, suspect: LeasedMessage) -> None:
        """Hold a suspect under lease until all other messages have ended."""

    def next_suspect(self) -> LeasedMessage | None:
        """Give the suspect once nothing else is held, for delivery; None before, and afterwards."""

    def note_poll(self) -> None:
        """Note that the consumer polls for messages."""

    def track(self, tag: str, kind: JobKind | None = "sounds", *, batch: bool = False) -> None:
        """Renew the lease from now on; the message takes a place of that kind; `batch`: it is of batch priority."""

    def stop_renewing(self, tag: str) -> None:
        """Stop renewing the lease; the message goes back to the queue when it ends."""

    def ack(self, tag: str) -> None:
        """End the lease: the message is done with."""
