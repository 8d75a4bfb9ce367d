"""What goes wrong, and when: planned from the seed, then carried out."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from support.services import Proxy

from .recorder import Watcher
from .servers import LEASE, Servers
from .workers import Crew, Hand

Kind = Literal["kills", "stops", "restarts", "cuts", "outages"]
Range = tuple[float, float]
"""Least and most."""

PROCESS_FAULTS: Mapping[Kind, Range] = {"kills": (0, 0), "stops": (1.5 * LEASE, 3 * LEASE)}
SERVER_FAULTS: Mapping[Kind, Range] = {"restarts": (1, 2), "cuts": (0.5, 2 * LEASE), "outages": (2, 6)}
"""Seconds that each kind lasts. The two groups go on side by side: a worker may be killed while Redis is away."""
PAUSE: Range = (1.5, 6.0)
"""Seconds between two faults of a group."""


@dataclass(frozen=True)
class Fault:
    """One planned fault."""

    at: float
    """Seconds after the beginning."""
    kind: Kind
    seconds: float


def plan(kinds: Mapping[Kind, Range], luck: random.Random, seconds: float) -> list[Fault]:
    """Faults that are over after so many seconds: round after round of every kind once, in an order of its own."""
    faults: list[Fault] = []
    now = 0.0
    while True:
        for kind in luck.sample(list(kinds), len(kinds)):
            at, lasts = now + luck.uniform(*PAUSE), luck.uniform(*kinds[kind])
            now = at + lasts
            if now > seconds:
                return faults
            faults.append(Fault(at, kind, lasts))


class Faults:
    """Carries plans out.

    Args:
        servers, crew: what they happen to.
        watcher: told which worker was killed.
        over: ends every plan, and every fault, at once.
    """

    def __init__(self, servers: Servers, crew: Crew, watcher: Watcher, over: threading.Event) -> None:
        self.done: Counter[Kind] = Counter()
        """How many of each kind."""
        self._servers = servers
        self._crew = crew
        self._watcher = watcher
        self._over = over

    def carry_out(self, faults: list[Fault], luck: random.Random, start: float, end: float) -> None:
        """Do them one after the other, each at its time after `start`; none begins after `end` (monotonic times)."""
        for fault in faults:
            if self._over.wait(max(0.0, start + fault.at - time.monotonic())):
                return
            if self._do(fault, luck, end):
                self.done[fault.kind] += 1

    def _do(self, fault: Fault, luck: random.Random, end: float) -> bool:
        def pause() -> None:
            self._over.wait(fault.seconds)

        match fault.kind:
            case "kills":
                return self._kill(luck, end)
            case "stops":
                return self._stop(luck, pause, end)
            case "restarts":
                self._servers.restart_redis(pause)
            case "cuts":
                _cut(self._servers.redis_proxy, pause)
            case "outages":
                _cut(self._servers.s3_proxy, pause)
        return True

    def _kill(self, luck: random.Random, end: float) -> bool:
        hand = self._choose(luck, end)
        if hand is not None:
            self._crew.kill(hand)
            self._watcher.note_kill(hand.name)
        return hand is not None

    def _stop(self, luck: random.Random, pause: Callable[[], None], end: float) -> bool:
        hand = self._choose(luck, end)
        if hand is not None:
            self._crew.stop(hand, pause)
        return hand is not None

    def _choose(self, luck: random.Random, end: float) -> Hand | None:
        """A worker that others can stand in for, once there is one; None where `end` comes first."""
        while (hand := self._crew.choose(luck)) is None:
            if time.monotonic() > end or self._over.wait(0.1):
                return None
        return hand


def _cut(proxy: Proxy, pause: Callable[[], None]) -> None:
    proxy.cut()
    try:
        pause()
    finally:
        proxy.heal()
