"""Records every start and every outcome of jobs as Redis publishes them, and how soon they come after a fault."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from omnifleet_shared.keys import ATTEMPTS_KEY
from omnifleet_shared.schema.job_state import STATE_KEY, STATUS_OF, parse_record
from omnifleet_shared.schema.results import JobStatus
from redis import Redis, RedisError

from .faults import Kind

PATTERN = STATE_KEY.format(job_id="*")
LISTEN_SECONDS = 0.5
"""Seconds after which the listener sees whether it is to end."""


@dataclass(frozen=True)
class RecordedJob:
    """What was published of a job, and what Redis holds of it in the end."""

    outcomes: int
    """Different final records that it had; exactly one is right."""
    starts: int
    """Times that workers started it."""


class Recorder:
    """Listens on a thread of its own until the end of the block; misses what is published while Redis is away.

    Args:
        redis: a client that does not go through the proxies, with a timeout.
    """

    def __init__(self, redis: Redis) -> None:
        self.recoveries: defaultdict[Kind, list[float]] = defaultdict(list)
        """Seconds from a fault to the next start of each job that the worker had, or from its end to the next outcome
        of any job."""
        self.heard: defaultdict[str, list[tuple[float, bytes]]] = defaultdict(list)
        """Every record that was published of a job, with the Unix time at which it was."""
        self._redis = redis
        self._running: set[str] = set()
        self._orphans: dict[str, tuple[Kind, float]] = {}
        self._healed: dict[Kind, float] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._redis.close()

    def await_starts(self, kind: Kind, worker: str) -> None:
        """Time the next start of each job that the worker of that name runs, from now."""
        now = time.monotonic()
        with self._lock:
            running = list(self._running)
        try:
            names = self._workers(running)
        except RedisError:
            return  # away as well: what the worker runs cannot be known
        with self._lock:
            for job_id, name in zip(running, names, strict=True):
                if name == worker.encode() and job_id in self._running:
                    self._orphans[job_id] = kind, now

    def await_outcome(self, kind: Kind) -> None:
        """Time the next outcome of any job, from now."""
        with self._lock:
            self._healed[kind] = time.monotonic()

    def recorded(self, job_id: str) -> RecordedJob:
        """Count the job's starts and its different outcomes: those published, and the one that is stored."""
        stored = cast(bytes | None, self._redis.get(STATE_KEY.format(job_id=job_id)))
        records = {record for _, record in self.heard.get(job_id, [])} | ({stored} if stored else set())
        starts = cast(bytes | None, self._redis.hget(ATTEMPTS_KEY.format(job_id=job_id), "attempts"))
        return RecordedJob(sum(_status(record).is_final for record in records), int(starts or 0))

    def _workers(self, jobs: list[str]) -> list[bytes | None]:
        with self._redis.pipeline(transaction=False) as pipe:
            for job_id in jobs:
                pipe.hget(ATTEMPTS_KEY.format(job_id=job_id), "worker")
            return cast(list[bytes | None], pipe.execute())

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                self._listen()
            except (RedisError, OSError):
                self._over.wait(0.1)

    def _listen(self) -> None:
        pubsub = cast(Any, self._redis).pubsub(ignore_subscribe_messages=True)
        with pubsub:
            pubsub.psubscribe(PATTERN)
            while not self._over.is_set():
                message = pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None:
                    self._hear(message["channel"].decode().removeprefix(PATTERN[:-1]), message["data"])

    def _hear(self, job_id: str, record: bytes) -> None:
        status = _status(record)
        with self._lock:
            self.heard[job_id].append((time.time(), record))
            if status is JobStatus.RUNNING:
                self._note_start(job_id)
            else:
                self._running.discard(job_id)
            if status.is_final:
                self._note_outcome(job_id)

    def _note_start(self, job_id: str) -> None:
        self._running.add(job_id)
        if job_id in self._orphans:
            kind, since = self._orphans.pop(job_id)
            self.recoveries[kind].append(time.monotonic() - since)

    def _note_outcome(self, job_id: str) -> None:
        self._orphans.pop(job_id, None)
        for kind, since in self._healed.items():
            self.recoveries[kind].append(time.monotonic() - since)
        self._healed.clear()


def _status(record: bytes) -> JobStatus:
    return STATUS_OF[parse_record(record)["status"]]
