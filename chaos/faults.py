"""Faults: the kinds of what goes wrong, and when, planned from the seed."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .servers import LEASE, REDIS_TIMEOUT

Range = tuple[float, float]
"""Least and most seconds."""


class Kind(StrEnum):
    """What goes wrong."""

    KILL = "kill"
    """A worker is killed (SIGKILL)."""
    STOP = "stop"
    """A worker stands still (SIGSTOP) for longer than its lease."""
    BROKEN_DEVICE = "broken-device"
    """From now on every call of a worker's device raises."""
    WRONG_CREDENTIALS = "wrong-credentials"
    """S3 refuses one worker's credentials."""
    FULL_DISK = "full-disk"
    """One worker's storage has no space left."""
    CUT = "cut"
    """Connections break, and new ones too."""
    HALF_OPEN = "half-open"
    """Connections fall silent and stay so until somebody gives them up; so do new ones for a while."""
    REQUEST_LOSS = "request-loss"
    """Requests get lost, whole or from a random byte on, and their connections break."""
    REPLY_LOSS = "reply-loss"
    """Requests are carried out, and their replies get lost."""
    REDIS_RESTART = "redis-restart"
    """Redis is killed, and comes back with what it had written."""
    REDIS_PAUSE = "redis-pause"
    """Redis stands still, or holds all commands back."""
    OUTAGE = "outage"
    """Nobody reaches the storage."""
    POISON = "poison"
    """A job kills every worker that runs it."""
    CLOCK_SKEW = "clock-skew"
    """Workers' clocks are wrong by minutes, each by another time. Lasts as long as the run."""


@dataclass(frozen=True)
class Lane:
    """Faults that come one after another; lanes go on side by side: a worker may be killed while Redis is away."""

    name: str
    pause: Range
    """Between two of its faults."""
    kinds: Mapping[Kind, Range]
    """How long each kind lasts."""


LANES = (
    Lane("kills", (2, 8), {Kind.KILL: (0, 0)}),
    Lane(
        "workers",
        (0.5, 4),
        {
            Kind.STOP: (1.25 * LEASE, 2 * LEASE),
            Kind.BROKEN_DEVICE: (0, 0),
            Kind.WRONG_CREDENTIALS: (1, 4),
            Kind.FULL_DISK: (1, 4),
        },
    ),
    Lane(
        "network",
        (1, 8),
        {
            Kind.CUT: (0.5, 1.5 * LEASE),
            Kind.HALF_OPEN: (0.5, 2 * REDIS_TIMEOUT),
            Kind.REQUEST_LOSS: (1, 4),
            Kind.REPLY_LOSS: (1, 4),
        },
    ),
    Lane(
        "servers",
        (1, 8),
        {Kind.REDIS_RESTART: (1, 2), Kind.REDIS_PAUSE: (0.5, 1.5 * LEASE), Kind.OUTAGE: (2, 6)},
    ),
    Lane("jobs", (0.5, 8), {Kind.POISON: (0, 0)}),
)


@dataclass(frozen=True)
class Fault:
    """One planned fault."""

    after: float
    """Seconds of calm before it."""
    kind: Kind
    seconds: float


def plan(lane: Lane, kinds: Collection[Kind], rng: random.Random) -> Iterator[Fault]:
    """Plan the faults of a lane without end: every kind of it that is wanted, in a random order, again and again."""
    wanted = [kind for kind in lane.kinds if kind in kinds]
    while wanted:
        for kind in rng.sample(wanted, len(wanted)):
            yield Fault(rng.uniform(*lane.pause), kind, rng.uniform(*lane.kinds[kind]))
