"""The fault injector: makes planned faults happen, one after another in every lane."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from .faults import Fault, Kind
from .load_generator import LoadGenerator
from .proxy import Trouble
from .recorder import Recorder
from .servers import Link, Pause, Servers, make_trouble
from .workers import WorkerProcess, Workers
from .workload import Poison

WAIT_FOR_WORKERS = 0.1
"""Seconds between two looks for a worker that a fault may hit."""
TROUBLES: dict[Kind, Trouble] = {
    Kind.CUT: "cut",
    Kind.HALF_OPEN: "half-open",
    Kind.REQUEST_LOSS: "request-loss",
    Kind.REPLY_LOSS: "reply-loss",
}


class FaultInjector:
    """Makes planned faults happen; each lane runs on a thread of its own.

    Args:
        servers, workers: what they happen to.
        recorder: times the recoveries.
        poisoner: submits the poison jobs, and awaits what becomes of them.
        log: file for every fault, one JSON object a line.
        quiet: ends all lanes and faults.
    """

    def __init__(
        self,
        servers: Servers,
        workers: Workers,
        recorder: Recorder,
        poisoner: LoadGenerator,
        log: Path,
        quiet: threading.Event,
    ) -> None:
        self.done: Counter[Kind] = Counter()
        """Faults that were injected, by kind."""
        self._servers = servers
        self._workers = workers
        self._recorder = recorder
        self._poisoner = poisoner
        self._log = log
        self._quiet = quiet
        self._lock = threading.Lock()

    def run(self, faults: Iterable[Fault], rng: random.Random) -> None:
        """Inject faults one by one until it is quiet."""
        for fault in faults:
            if self._quiet.wait(fault.after):
                return
            self._inject(fault, rng)

    def _inject(self, fault: Fault, rng: random.Random) -> None:
        match fault.kind:
            case Kind.KILL:
                self._hit(fault, rng, lambda worker, _: self._workers.kill(worker))
            case Kind.STOP:
                self._hit(fault, rng, self._workers.stop)
            case Kind.BROKEN_DEVICE:
                self._hit(fault, rng, lambda worker, _: self._workers.break_device(worker))
            case Kind.FULL_DISK:
                self._hit(fault, rng, self._workers.fill_disk)
            case Kind.WRONG_CREDENTIALS:
                self._hit(fault, rng, lambda worker, pause: make_trouble([worker.link.s3], "refused", pause))
            case Kind.REDIS_RESTART:
                self._happen(fault, "redis", self._servers.restart_redis)
            case Kind.REDIS_PAUSE if rng.random() < 0.5:
                self._happen(fault, "redis, by itself", lambda pause: self._servers.pause_redis(fault.seconds, pause))
            case Kind.REDIS_PAUSE:
                self._happen(fault, "redis", self._servers.stop_redis)
            case Kind.OUTAGE:
                proxies = [link.s3 for link in self._servers.links]
                self._happen(fault, "storage", lambda pause: make_trouble(proxies, "cut", pause))
            case Kind.POISON:
                self._poison(fault)
            case _:
                self._trouble_network(fault, rng)

    def _hit(self, fault: Fault, rng: random.Random, work: Callable[[WorkerProcess, Pause], object]) -> None:
        """Let a fault happen to a worker that is not the only one that takes jobs."""
        while (worker := self._workers.choose(rng)) is None:
            if self._quiet.wait(WAIT_FOR_WORKERS):
                return
        self._note(fault, worker.name)
        self._recorder.await_starts(fault.kind, worker.name)
        work(worker, self._pause(fault))
        self._workers.release(worker)
        self.done[fault.kind] += 1

    def _happen(self, fault: Fault, where: str, work: Callable[[Pause], object]) -> None:
        """Let a fault happen to many, and time the next outcome after its end."""
        self._note(fault, where)
        work(self._pause(fault))
        self._recorder.await_outcome(fault.kind)
        self.done[fault.kind] += 1

    def _trouble_network(self, fault: Fault, rng: random.Random) -> None:
        """Trouble the way to Redis or to the storage, of everybody, of the clients or of one worker."""
        clients, *workers = self._servers.links
        links: list[Link] = rng.choice([[clients, *workers], [clients], [rng.choice(workers)]])
        server = rng.choice(["redis", "s3"])
        proxies = [link.redis if server == "redis" else link.s3 for link in links]
        who = "everybody" if len(links) > 1 else links[0].name
        trouble = TROUBLES[fault.kind]
        self._happen(fault, f"{server} of {who}", lambda pause: make_trouble(proxies, trouble, pause))

    def _poison(self, fault: Fault) -> None:
        self._note(fault, "a job")
        start = time.monotonic()
        if self._poisoner.ask(Poison.number(self.done[Kind.POISON])):
            self._recorder.recoveries[fault.kind].append(time.monotonic() - start)
            self.done[fault.kind] += 1

    def _pause(self, fault: Fault) -> Pause:
        return lambda: self._quiet.wait(fault.seconds)

    def _note(self, fault: Fault, where: str) -> None:
        entry = {"timestamp": time.time(), "kind": fault.kind, "seconds": round(fault.seconds, 2), "where": where}
        with self._lock, self._log.open("a") as log:
            log.write(f"{json.dumps(entry)}\n")
