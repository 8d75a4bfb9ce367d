"""Records every start and every outcome of jobs as Redis publishes them."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from omnifleet_shared.keys import ATTEMPTS_KEY
from omnifleet_shared.schema.job_state import STATE_KEY, STATUS_OF, parse_record
from omnifleet_shared.schema.results import JobStatus
from redis import Redis, RedisError

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
        redis: a client that does not go through the proxies.
    """

    def __init__(self, redis: Redis) -> None:
        self.recoveries: list[float] = []
        """Seconds from each kill to the next start of each job that the worker had."""
        self._redis = redis
        self._outcomes: dict[str, list[bytes]] = {}
        self._running: set[str] = set()
        self._orphans: dict[str, float] = {}
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

    def note_kill(self, worker: str) -> None:
        """Note that the worker of that name was killed just now; the next start of each job that it ran is timed."""
        now = time.monotonic()
        with self._lock:
            running = list(self._running)
        try:
            names = self._workers(running)
        except RedisError:
            return  # away as well: what the worker ran cannot be known
        with self._lock:
            for job_id, name in zip(running, names, strict=True):
                if name == worker.encode() and job_id in self._running:
                    self._orphans[job_id] = now

    def recorded(self, job_id: str) -> RecordedJob:
        """Count the job's starts and its different outcomes: those published, and the one that is stored."""
        stored = cast(bytes | None, self._redis.get(STATE_KEY.format(job_id=job_id)))
        heard = self._outcomes.get(job_id, [])
        unheard = stored is not None and stored not in heard and _status(stored).is_final
        starts = cast(bytes | None, self._redis.hget(ATTEMPTS_KEY.format(job_id=job_id), "attempts"))
        return RecordedJob(len(heard) + unheard, int(starts or 0))

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
        pubsub: Any = self._redis.pubsub(ignore_subscribe_messages=True)
        with pubsub:
            pubsub.psubscribe(PATTERN)
            while not self._over.is_set():
                message = pubsub.get_message(timeout=LISTEN_SECONDS)
                if message is not None:
                    self._hear(message["channel"].decode().removeprefix(PATTERN[:-1]), message["data"])

    def _hear(self, job_id: str, record: bytes) -> None:
        status = _status(record)
        with self._lock:
            if status is JobStatus.RUNNING:
                self._note_start(job_id)
            else:
                self._running.discard(job_id)
            if status.is_final:
                self._orphans.pop(job_id, None)
                self._outcomes.setdefault(job_id, []).append(record)

    def _note_start(self, job_id: str) -> None:
        self._running.add(job_id)
        killed = self._orphans.pop(job_id, None)
        if killed is not None:
            self.recoveries.append(time.monotonic() - killed)


def _status(record: bytes) -> JobStatus:
    return STATUS_OF[parse_record(record)["status"]]
