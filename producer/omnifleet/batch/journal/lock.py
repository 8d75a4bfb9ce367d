"""One process a batch: whoever writes its journal holds a lock, and everybody else is refused."""

from __future__ import annotations

import hashlib
import threading
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, cast

from filelock import FileLock, Timeout
from omnifleet_shared.errors import BatchRunning, BrokerError
from omnifleet_shared.keys import BATCH_KEY
from omnifleet_shared.redis_client import connect_redis, typed_redis_errors
from omnifleet_shared.settings import FleetSettings
from redis.exceptions import LockError, RedisError

LIFETIME = 60.0
"""Seconds after which the lock of a process that is gone may be taken by any other."""


class BatchLock(Protocol):
    """A lock that is held while a batch runs, and ends with its process."""

    def acquire(self) -> None:
        """Take it. Raises BatchRunning where another process holds it."""

    def check(self) -> None:
        """Raise BatchRunning where another process has taken it meanwhile."""

    def is_held(self) -> bool:
        """Whether any process holds it."""
        ...

    def release(self) -> None:
        """Give it up."""


class FileBatchLock:
    """Locks a journal in a file: the system's own lock on a file beside it, which ends with the process."""

    def __init__(self, journal: Path) -> None:
        self._lock = FileLock(f"{journal}.lock")

    def acquire(self) -> None:
        """See `BatchLock`."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise _running(self._lock.lock_file.removesuffix(".lock")) from error

    def check(self) -> None:
        """See `BatchLock`. The system takes it from nobody."""

    def is_held(self) -> bool:
        """See `BatchLock`."""
        if not Path(self._lock.lock_file).exists():
            return False
        try:
            with self._lock.acquire(timeout=0):
                return False
        except Timeout:
            return True

    def release(self) -> None:
        """See `BatchLock`."""
        self._lock.release()


class RedisBatchLock:
    """Locks a journal in storage: a lock in the fleet's Redis that a thread renews."""

    def __init__(self, journal: str, settings: FleetSettings) -> None:
        self._journal = journal
        self._redis = connect_redis(settings)
        name = BATCH_KEY.format(journal=hashlib.sha256(journal.encode()).hexdigest()[:32])
        # Not kept in the thread that took it: another one renews it.
        self._lock = cast(Any, self._redis).lock(name, timeout=LIFETIME, thread_local=False)
        self._token = uuid.uuid4().hex.encode()
        self._released = threading.Event()
        self._lost = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name="batch-lock", daemon=True)

    def acquire(self) -> None:
        """See `BatchLock`. Raises BrokerUnavailable too."""
        with typed_redis_errors():
            if not self._take():
                raise _running(self._journal)
        self._renewing.start()

    def check(self) -> None:
        """See `BatchLock`."""
        if self._lost.is_set():
            raise _running(self._journal)

    def is_held(self) -> bool:
        """See `BatchLock`. Raises BrokerUnavailable."""
        with typed_redis_errors():
            return bool(self._lock.locked())

    def release(self) -> None:
        """See `BatchLock`."""
        self._released.set()
        if self._renewing.is_alive():
            self._renewing.join()
            with suppress(LockError, RedisError):  # it expires by itself
                self._lock.release()
        self._redis.close()

    def _take(self) -> bool:
        if self._lock.acquire(blocking=False, token=self._token):
            return True
        # Sent again after a lost connection, the command is refused by the lock that its first run took.
        self._lock.local.token = self._token
        return bool(self._lock.owned())

    def _renew(self) -> None:
        while not self._released.wait(LIFETIME / 4):
            with suppress(BrokerError), typed_redis_errors():
                self._reacquire()

    def _reacquire(self) -> None:
        try:
            self._lock.reacquire()
        except LockError:
            # It expired while Redis was away, or was lost with it; nobody may have taken it.
            if not self._take():
                self._lost.set()
                self._released.set()


def _running(journal: str) -> BatchRunning:
    problem = f"another process works on the batch of {journal!r}"
    return BatchRunning(problem, "journal", "Look at it with omnifleet batch status, or stop it with batch cancel")
