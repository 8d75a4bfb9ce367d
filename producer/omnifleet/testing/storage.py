"""Object storage in memory, for tests and other single processes."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import BinaryIO

from omnifleet_shared.errors import ForeignURI, MediaNotFound
from omnifleet_shared.storage import ListedObject, Storage, StoredObject
from omnifleet_shared.storage.base import ByteStream

HOME = "s3://memory/"


class MemoryStorage(Storage):
    """`s3://memory/` URIs that live as long as this object. Its links lead nowhere."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        """Bytes by key."""
        self._modified: dict[str, float] = {}

    def uri(self, key: str) -> str:
        return HOME + key

    def key(self, uri: str) -> str:
        key = uri.removeprefix(HOME)
        if not uri.startswith(HOME) or not key:
            raise ForeignURI(f"{uri[:200]!r} is outside the storage {HOME}", "uri", "Upload the file, or put it there")
        return key

    def stat(self, uri: str) -> StoredObject | None:
        data = self.objects.get(self.key(uri))
        if data is None:
            return None
        age = time.time() - self._modified.get(self.key(uri), 0.0)
        return StoredObject(uri=uri, bytes=len(data), age=age)

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        data = self.objects[key] = source.read()
        self._modified[key] = time.time()
        return StoredObject(uri=self.uri(key), bytes=len(data))

    def open(self, uri: str, *, start: int = 0) -> ByteStream:
        data = self.objects.get(self.key(uri))
        if data is None:
            raise MediaNotFound(f"nothing is stored at {uri}", "uri", "Upload the file first")
        return io.BytesIO(data[start:])

    def delete(self, uri: str) -> None:
        self.objects.pop(self.key(uri), None)

    def touch(self, uri: str) -> bool:
        key = self.key(uri)
        if key in self.objects:
            self._modified[key] = time.time()
        return key in self.objects

    def list(self, prefix: str) -> Iterator[ListedObject]:
        for key, data in list(self.objects.items()):
            if key.startswith(prefix):
                yield ListedObject(uri=self.uri(key), bytes=len(data), modified=self._modified.get(key, 0.0))

    def url(self, uri: str, lifetime: int) -> str:
        return f"https://memory.invalid/{self.key(uri)}?expires={lifetime}"
