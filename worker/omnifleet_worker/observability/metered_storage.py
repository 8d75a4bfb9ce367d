"""A storage whose refusals and silences are counted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from omnifleet_shared.errors import StorageRefused, StorageUnavailable
from omnifleet_shared.storage import ListedObject, Storage, StoredObject
from omnifleet_shared.storage.base import ByteStream
from prometheus_client import Counter


class MeteredStorage(Storage):
    """Counts the errors of another storage; what is the caller's fault, such as a wrong URI, is not counted.

    Args:
        storage: does the work.
        errors: counter with the labels operation and error.
    """

    def __init__(self, storage: Storage, errors: Counter) -> None:
        self._storage = storage
        self._errors = errors

    def uri(self, key: str) -> str:
        return self._storage.uri(key)

    def key(self, uri: str) -> str:
        return self._storage.key(uri)

    def stat(self, uri: str) -> StoredObject | None:
        with self._counted("stat"):
            return self._storage.stat(uri)

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        with self._counted("put"):
            return self._storage.put(key, source, content_type=content_type, filename=filename)

    def open(self, uri: str, *, start: int = 0) -> ByteStream:
        with self._counted("get"):
            return self._storage.open(uri, start=start)

    def get(self, uri: str, *, max_bytes: int) -> bytes:
        with self._counted("get"):
            return self._storage.get(uri, max_bytes=max_bytes)

    def delete(self, uri: str) -> None:
        with self._counted("delete"):
            self._storage.delete(uri)

    def delete_many(self, uris: Sequence[str]) -> None:
        with self._counted("delete"):
            self._storage.delete_many(uris)

    def touch(self, uri: str) -> bool:
        with self._counted("touch"):
            return self._storage.touch(uri)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        with self._counted("list"):
            yield from self._storage.list(prefix)

    def clock(self) -> float | None:
        return self._storage.clock()

    def url(self, uri: str, lifetime: int) -> str:
        with self._counted("url"):
            return self._storage.url(uri, lifetime)

    @contextmanager
    def _counted(self, operation: str) -> Iterator[None]:
        try:
            yield
        except (StorageUnavailable, StorageRefused) as error:
            self._errors.labels(operation, type(error).__name__).inc()
            raise
