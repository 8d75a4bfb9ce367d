"""Faults: what goes wrong, and when, planned from the seed, then injected."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from support.services import Proxy

from .recorder import Recorder
from .servers import LEASE, Servers
from .workers import WorkerProcess, Workers

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
    """Seconds after the start of the run."""
    kind: Kind
    seconds: float


def plan(kinds: Mapping[Kind, Range], rng: random.Random, seconds: float) -> list[Fault]:
    """Plan faults that are over after so many seconds: every kind once in a random order, again and again."""
    faults: list[Fault] = []
    now = 0.0
    while True:
        for kind in rng.sample(list(kinds), len(kinds)):
            at, lasts = now + rng.uniform(*PAUSE), rng.uniform(*kinds[kind])
            now = at + lasts
            if now > seconds:
                return faults
            faults.append(Fault(at, kind, lasts))


class FaultInjector:
    """Makes planned faults happen.

    Args:
        servers, workers: what they happen to.
        recorder: notes which worker was killed.
        over: ends all plans and faults at once.
    """

    def __init__(self, servers: Servers, workers: Workers, recorder: Recorder, over: threading.Event) -> None:
        self.done: Counter[Kind] = Counter()
        """Faults that were injected, by kind."""
        self._servers = servers
        self._workers = workers
        self._recorder = recorder
        self._over = over

    def run(self, faults: list[Fault], rng: random.Random, start: float, end: float) -> None:
        """Inject faults one by one, each at its time after `start`; none begins after `end` (both monotonic times)."""
        for fault in faults:
            if self._over.wait(max(0.0, start + fault.at - time.monotonic())):
                return
            if self._inject(fault, rng, end):
                self.done[fault.kind] += 1

    def _inject(self, fault: Fault, rng: random.Random, end: float) -> bool:
        def pause() -> None:
            self._over.wait(fault.seconds)

        match fault.kind:
            case "kills":
                return self._kill(rng, end)
            case "stops":
                return self._stop(rng, pause, end)
            case "restarts":
                self._servers.restart_redis(pause)
            case "cuts":
                _cut(self._servers.redis_proxy, pause)
            case "outages":
                _cut(self._servers.s3_proxy, pause)
        return True

    def _kill(self, rng: random.Random, end: float) -> bool:
        worker = self._choose(rng, end)
        if worker is not None:
            self._workers.kill(worker)
            self._recorder.note_kill(worker.name)
        return worker is not None

    def _stop(self, rng: random.Random, pause: Callable[[], None], end: float) -> bool:
        worker = self._choose(rng, end)
        if worker is not None:
            self._workers.stop(worker, pause)
        return worker is not None

    def _choose(self, rng: random.Random, end: float) -> WorkerProcess | None:
        """Wait for a worker that is not the only one that takes jobs; gives None where `end` comes first."""
        while (worker := self._workers.choose(rng)) is None:
            if time.monotonic() > end or self._over.wait(0.1):
                return None
        return worker


def _cut(proxy: Proxy, pause: Callable[[], None]) -> None:
    proxy.cut()
    try:
        pause()
    finally:
        proxy.heal()
