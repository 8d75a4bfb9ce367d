"""Renews the leases of this process's jobs while its engine steps, and recovers those of workers that are gone."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omnifleet_shared.broker.kinds import KINDS, JobKind, Place
from omnifleet_shared.broker.leases import LeasedMessage, Leases
from omnifleet_shared.errors import BrokerError
from omnifleet_shared.observability.outage_log import OutageLog

from .places import JobPlaces

logger = logging.getLogger(__name__)
EXIT_HUNG = 70
"""Exit code of a process whose engine hung (EX_SOFTWARE)."""
EXIT_POLL_STALLED = 71
"""Exit code of a process that has free slots and stopped polling for messages."""
EXIT_BROKEN = 72
"""Exit code of a process whose device broke, or whose model failed job after job: its jobs were handed back before."""


@dataclass
class LeaseCounts:
    """Counts leases renewed, lost and recovered since the process started."""

    renewed: int = 0
    lost: int = 0
    """Leases of this process that went to another worker."""
    recovered: int = 0
    """Leases of lost workers that this one put back into the queue."""


class LeaseRenewer:
    """Renews the leases of one process on a thread; a message whose lease it no longer renews goes to another worker.

    Args:
        leases: the queue's leases in Redis.
        places: messages of each kind that the process holds at once.
        engine_stalled: returns the seconds since the engine finished a step; 0 while it is idle.
        engine_timeout: seconds without a step after which the process is ended.
        poll_timeout: seconds without polling, with slots free and Redis reachable, after which it is ended.
        on_lost: called with the tag of a lease that went to another worker.
    """

    def __init__(
        self,
        leases: Leases,
        *,
        places: Mapping[JobKind, int],
        engine_stalled: Callable[[], float],
        engine_timeout: float,
        poll_timeout: float,
        on_lost: Callable[[str], None],
    ) -> None:
        self.leases = leases
        self.counts = LeaseCounts()
        self.places = JobPlaces(places)
        self._has_stopped_polling = False
        self._is_paused = False
        self.is_cancelled = False
        """Whether an operator said to take no messages."""
        self.polled: frozenset[Place] = frozenset()
        """Places that the consumer's poll is for, which is on its way; none where no poll is."""
        self.on_room: Callable[[], None] = lambda: None
        """Called by any thread when a place is free again that no poll is for."""
        self._poll_timeout = poll_timeout
        self._polled_at: float | None = None
        self._poll_clock_from = 0.0
        self._redis_answered_at = 0.0
        self._on_lost = on_lost
        self._engine_stalled = engine_stalled
        self._engine_timeout = engine_timeout
        self._held: dict[str, float] = {}
        self._running: set[str] = set()
        self._finishing: set[str] = set()
        self._suspect: LeasedMessage | None = None
        self._suspect_waits = False
        self._lock = threading.Lock()
        about = ("leases are not renewed", "leases are renewed again")
        self._outages = OutageLog(logger, "leases_unreachable", *about)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="lease-renewer", daemon=True)

    def __json__(self) -> str:
        """Return what `celery inspect` and Flower show among the options of the transport."""
        return f"{len(self._held)} of {self.places.total} slots held"

    def start(self) -> None:
        """Renew and recover four times a lease, until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and hand what is still held back now instead of when its lease ends."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.hand_back()

    @property
    def takes(self) -> bool:
        """Whether messages may be taken."""
        return not (self._has_stopped_polling or self._is_paused or self.is_cancelled)

    @property
    def has_room(self) -> bool:
        """Whether a place is free, of any kind; a suspect that waits for the others takes none yet."""
        return any(self.room_for(Place(kind, False)) for kind in KINDS)

    def room_for(self, place: Place) -> int:
        """Places that are free for messages of a kind and priority."""
        # Most often it is enough to count, which costs a message less.
        if free := self.places.free(place):
            return free
        held = self._worth_renewing()
        with self._lock:
            return self.places.free_beside(held, place)

    @property
    def is_idle(self) -> bool:
        """Whether no message is held."""
        return not self._held or not self._worth_renewing()

    @property
    def has_suspect(self) -> bool:
        """Whether a suspect is held, beside which nothing may be taken."""
        return self._suspect is not None and self._suspect.tag in self._worth_renewing()

    @property
    def held_jobs(self) -> int:
        """Messages that are held, running or prefetched."""
        return len(self._held)

    @property
    def has_polled(self) -> bool:
        """Whether the consumer polls for messages: it has begun to, and was not asked to stop."""
        return self._polled_at is not None

    @property
    def seconds_since_poll(self) -> float:
        """Seconds since the consumer last polled; 0 before the first poll and while all slots are taken."""
        polled_at = self._polled_at
        return 0.0 if polled_at is None or self._all_slots_taken() else time.monotonic() - polled_at

    @property
    def poll_stalled_seconds(self) -> float:
        """Seconds without a poll up to Redis's last answer, less those in which the consumer could not poll."""
        polled_at = self._polled_at
        if polled_at is None or self._all_slots_taken():
            return 0.0
        return max(0.0, self._redis_answered_at - max(polled_at, self._poll_clock_from))

    def note_poll(self) -> None:
        """Note that the consumer polls for messages."""
        self._polled_at = time.monotonic()

    def stop_polling(self) -> None:
        """Take no more messages: a consumer that is being stopped must not take again what this process hands back."""
        self._has_stopped_polling = True
        self._polled_at = None

    def pause(self) -> None:
        """Take no messages until `resume`; polling goes on."""
        self._is_paused = True

    def resume(self) -> None:
        """Take messages again, unless the consumer is being stopped."""
        self._is_paused = False

    def cancel_consumer(self) -> None:
        """Take no messages until `add_consumer`, for an operator; polling goes on, and so do running jobs."""
        self.is_cancelled = True

    def add_consumer(self) -> None:
        """Take messages again after `cancel_consumer`."""
        self.is_cancelled = False

    def track(self, tag: str, kind: JobKind | None = "sounds", *, batch: bool = False) -> None:
        """Renew the lease of a message that was taken, for a while at first and then as long as its job runs."""
        with self._lock:
            self._held[tag] = time.monotonic()
            if kind is not None:
                self.places.take(tag, Place(kind, batch))

    def claim_suspect(self, suspect: LeasedMessage) -> None:
        """Hold a suspect under lease until everything else has ended; nothing is taken before it has ended too."""
        self._suspect, self._suspect_waits = suspect, True
        self.track(suspect.tag, None)
        extra = {"action": "suspect_claimed", "lease": suspect.tag, "others": self.held_jobs - 1}
        logger.info("a job whose worker was lost runs alone once %d others have ended", self.held_jobs - 1, extra=extra)

    def next_suspect(self) -> LeasedMessage | None:
        """Give the suspect to be delivered, once; None while anything else is held, and afterwards."""
        suspect = self._suspect
        if suspect is None or not self._suspect_waits or self._worth_renewing() != [suspect.tag]:
            return None
        self._suspect_waits = False
        return suspect

    def mark_running(self, tag: str) -> None:
        """Note that the job of the message runs."""
        with self._lock:
            self._running.add(tag)

    def mark_finishing(self, tag: str) -> None:
        """Note that the job's outcome is being recorded, which ends the lease: that is not to lose it."""
        with self._lock:
            self._finishing.add(tag)

    def stop_renewing(self, tag: str) -> None:
        """Stop renewing a lease, which then ends in its own time."""
        with self._lock:
            self._held.pop(tag, None)
            self._running.discard(tag)
            self._finishing.discard(tag)
            place = self.places.leave(tag)
        if place is not None and place not in self.polled:
            self.on_room()

    def ack(self, tag: str) -> None:
        """End a lease that is still held; with Redis away, the message is delivered again and finds the outcome."""
        if tag not in self._held:
            return
        self.stop_renewing(tag)
        try:
            self.leases.ack(tag)
        except BrokerError as error:
            logger.warning("a done job is still on lease: %s", error, extra={"action": "ack_failed"})

    def hand_back(self) -> None:
        """Put every held message back into the queue at once."""
        for tag in list(self._held):
            self._hand_back(tag)

    def hand_back_waiting(self) -> None:
        """Put a suspect that was not delivered yet back at once: a worker that takes nothing more never delivers it."""
        if self._suspect is not None and self._suspect_waits:
            self._hand_back(self._suspect.tag)

    def postpone(self, tag: str, seconds: float) -> None:
        """Give a message back that is not to be taken for so many seconds; with Redis away, when its lease ends."""
        self._hand_back(tag, seconds)

    def _hand_back(self, tag: str, seconds: float = 0.0) -> None:
        self.stop_renewing(tag)
        try:
            self.leases.postpone(tag, seconds)
            if not seconds:
                self.leases.recover()
        except BrokerError as error:
            logger.warning("a job waits for its lease to end: %s", error, extra={"action": "hand_back_failed"})

    def renew_and_recover(self) -> None:
        """Renew this process's leases and recover those of lost workers, once."""
        tags = self._worth_renewing()
        lost = self._still_held(self.leases.renew(tags))
        self.counts.renewed += len(tags) - len(lost)
        self.counts.lost += len(lost)
        for tag in lost:
            logger.warning("a lease was lost to another worker", extra={"action": "lease_lost", "lease": tag})
            self.stop_renewing(tag)
            self._on_lost(tag)
        recovered = self.leases.recover()
        self.counts.recovered += recovered
        if recovered:
            extra = {"action": "leases_recovered", "jobs": recovered}
            logger.warning("%d jobs of workers that are gone are back in the queue", recovered, extra=extra)

    def _still_held(self, tags: set[str]) -> set[str]:
        with self._lock:
            return (tags & self._held.keys()) - self._finishing

    def _worth_renewing(self) -> list[str]:
        # What was received and never started was dropped on the way, by a consumer that lost its connection, say.
        oldest = time.monotonic() - 3 * self.leases.seconds
        with self._lock:
            waiting = self._suspect.tag if self._suspect is not None and self._suspect_waits else None
            kept = self._running | {waiting}
            return [tag for tag, since in self._held.items() if tag in kept or since > oldest]

    def _loop(self) -> None:
        while not self._stopping.wait(self.leases.seconds / 4):
            self._check_engine()
            try:
                self.renew_and_recover()
                self._check_consumer()
                self._outages.answered()
            except BrokerError as error:
                self._outages.failed(error)
                self._restart_poll_clock()
            except Exception:
                logger.exception("the lease renewer failed, and goes on", extra={"action": "lease_renewer_failed"})

    def _check_engine(self) -> None:
        engine_stalled = self._engine_stalled()
        if engine_stalled > self._engine_timeout:
            extra = {"action": "engine_hung", "seconds": engine_stalled}
            logger.critical("the engine has not stepped for %.0f s: the process ends", engine_stalled, extra=extra)
            end_process(EXIT_HUNG)

    def _check_consumer(self) -> None:
        """End a process that stopped polling; judged after an answer of Redis, which a consumer may be waiting for."""
        self._redis_answered_at = time.monotonic()
        if self._all_slots_taken():
            self._restart_poll_clock()
        stalled = self.poll_stalled_seconds
        if stalled > self._poll_timeout:
            extra = {"action": "poll_stalled", "seconds": stalled}
            logger.critical("no message was polled for %.0f s: the process ends", stalled, extra=extra)
            end_process(EXIT_POLL_STALLED)

    def _all_slots_taken(self) -> bool:
        return self.places.all_taken

    def _restart_poll_clock(self) -> None:
        """Count from now: the consumer could not poll so far, with Redis away or no slot free."""
        self._poll_clock_from = time.monotonic()


def end_process(code: int) -> None:
    """End this process now, without a word to its threads."""
    logging.shutdown()
    # Nothing gentler: a thread that hangs cannot be stopped, and its jobs must go to another worker.
    os._exit(code)
