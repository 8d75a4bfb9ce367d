"""The worker processes: killed and stopped, and replaced where they are gone."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from omnifleet_shared.settings import FleetSettings
from support import services
from support.fork_server import ForkServer, is_alive

START_SECONDS = 120.0


@dataclass(eq=False)
class Hand:
    """One worker process."""

    pid: int
    log: Path
    ready: bool = False
    stopped: bool = False

    @property
    def name(self) -> str:
        """As it signs its attempts."""
        return f"{socket.gethostname()}:{self.pid}"

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended."""
        return not is_alive(self.pid)

    @property
    def is_up(self) -> bool:
        """Whether it takes jobs."""
        if not self.ready and not self.is_gone:
            self.ready = " ready." in self.log.read_text()
        return self.ready and not self.stopped and not self.is_gone

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)


class Crew:
    """So many workers, whatever happens to them.

    Args:
        size: how many.
        settings: of the fleet, as the workers see it.
        folder: for their logs.
        fork_server: where they come from, and with which they end.
    """

    def __init__(self, size: int, settings: FleetSettings, folder: Path, fork_server: ForkServer) -> None:
        self.exits = 0
        """Workers that ended without having been killed."""
        self._size = size
        self._environment = _environment(settings)
        self._folder = folder
        self._hands: list[Hand] = []
        self._started = 0
        self._fork_server = fork_server
        self._lock = threading.Lock()

    def start(self) -> None:
        """All of them; returns when they take jobs."""
        for _ in range(self._size):
            self._start()
        services.wait_until(lambda: len(self._up()) == self._size, START_SECONDS, f"workers ready, see {self._folder}")

    def tend(self) -> None:
        """Replace those that ended on their own, as Kubernetes would."""
        with self._lock:
            for hand in [hand for hand in self._hands if hand.is_gone]:
                self.exits += 1
                self._replace(hand)

    def choose(self, luck: random.Random) -> Hand | None:
        """One that takes jobs and is not the only one; None where there is none such."""
        up = self._up()
        return luck.choice(up) if len(up) > 1 else None

    def kill(self, hand: Hand) -> None:
        """End it as the kernel's out-of-memory killer would, and start another one."""
        with self._lock:
            hand.send(signal.SIGKILL)
            self._replace(hand)

    def stop(self, hand: Hand, pause: Callable[[], object]) -> None:
        """Stop it for the pause."""
        hand.stopped = True
        hand.send(signal.SIGSTOP)
        try:
            pause()
        finally:
            hand.send(signal.SIGCONT)
            hand.stopped = False

    def _up(self) -> list[Hand]:
        return [hand for hand in list(self._hands) if hand.is_up]

    def _replace(self, hand: Hand) -> None:
        self._hands.remove(hand)
        self._start()

    def _start(self) -> None:
        log = self._folder / f"worker-{self._started}.log"
        log.touch()
        pid = self._fork_server.fork(self._environment, log, f"--hostname=chaos-{self._started}@%h")
        self._hands.append(Hand(pid, log))
        self._started += 1


def _environment(settings: FleetSettings) -> dict[str, str]:
    return {
        "OMNIFLEET_REDIS_URL": settings.redis_url,
        "OMNIFLEET_STORAGE": settings.storage,
        "OMNIFLEET_S3_ENDPOINT": str(settings.s3_endpoint),
        "OMNIFLEET_LEASE": str(settings.lease),
        "OMNIFLEET_RETRY_BACKOFF": "0.2",
        # Workers are killed by us and not by their jobs, which are no reason to put a job aside.
        "OMNIFLEET_MAX_DELIVERIES": "100",
    }
