"""Celery's way to the records of jobs: `AsyncResult` and `celery … result` read what workers wrote down.

It writes nothing: `Attempts` does, under the lease of a job's message, and a worker that lost the lease may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NoReturn, cast

from celery.backends.base import KeyValueStoreBackend
from redis import Redis

from ..redis_client import connect_redis, typed_redis_errors


class RecordBackend(KeyValueStoreBackend):
    """A result backend that reads. Its app has `fleet_settings`; the first read connects.

    Reading raises BrokerUnavailable; whoever waits polls, as with Celery's simpler backends.
    """

    supports_autoexpire = True

    @cached_property
    def client(self) -> Redis:
        """The client of the fleet's Redis."""
        return connect_redis(self.app.fleet_settings)

    def get(self, key: bytes) -> bytes | None:
        """Read one record."""
        with typed_redis_errors():
            return cast(bytes | None, self.client.get(key))

    def mget(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Read several records."""
        with typed_redis_errors():
            return cast(list[bytes | None], self.client.mget(keys))

    def store_result(self, task_id: str, result: Any, state: str, *_: Any, **__: Any) -> Any:
        """Store nothing: the outcome is recorded already, or is not this worker's to record."""
        return result

    def forget(self, task_id: str) -> NoReturn:
        """Refuse: a job without its record is one that nobody can wait for."""
        raise NotImplementedError("records of jobs are not deleted: they expire (OMNIFLEET_RESULT_LIFETIME)")

    def ensure_chords_allowed(self) -> NoReturn:
        """Refuse chords before they are sent."""
        raise NotImplementedError("a job here sends no other task when it ends: gather the results yourself")

    def as_uri(self, include_password: bool = False) -> str:
        """Name it for people, without the password of Redis."""
        return "records of the fleet"
