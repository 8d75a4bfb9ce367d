"""Announcements of what is about to be deleted from storage, so that no new job is promised it.

`omnifleet storage gc` announces objects first and looks at their age once more afterwards; a producer makes sure that
an object is there and young first and looks for announcements afterwards. So whichever comes second sees the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from ..keys import DELETION_KEY, DELETION_LIFETIME
from ..redis_client import typed_redis_errors


class Deletions:
    """The announcements of one Redis. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def announce(self, uris: Sequence[str]) -> None:
        """Announce that these objects are about to be deleted, for `DELETION_LIFETIME` seconds at the most."""
        with typed_redis_errors(), self._redis.pipeline() as pipe:
            for name in _names(uris):
                pipe.set(name, b"1", ex=DELETION_LIFETIME)
            pipe.execute()

    def withdraw(self, uris: Sequence[str]) -> None:
        """Take the announcement back: each of them is deleted, or will not be."""
        if uris:
            with typed_redis_errors():
                self._redis.unlink(*_names(uris))

    def pending(self, uris: Sequence[str]) -> bool:
        """Whether any of these objects is about to be deleted."""
        if not uris:
            return False
        with typed_redis_errors():
            return bool(cast(Any, self._redis).exists(*_names(uris)))


def _names(uris: Sequence[str]) -> list[str]:
    return [DELETION_KEY.format(uri=uri) for uri in uris]
