"""The interface of object storage, and what all its implementations share."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from ..errors import MediaError, MediaTooLarge
from ..keys import INPUT_KEY
from ..schema.base import Media

TOUCH_AFTER = 3600.0
"""Seconds after which an object that a new job names is touched, so that what deletes by age leaves it alone."""


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object in storage."""

    uri: str
    bytes: int
    age: float | None = field(default=None, compare=False)
    """Seconds since it was written or touched, by the storage's clock, where it was looked up; None elsewhere."""


@dataclass(frozen=True, kw_only=True)
class ListedObject(StoredObject):
    """An object as a listing tells it."""

    modified: float
    """Unix time of its last change, by the storage's clock."""


class ByteStream(Protocol):
    """An opened object: a context manager to read bytes from."""

    def read(self, size: int, /) -> bytes: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class Storage(ABC):
    """Stores media by URI. Every method may raise StorageUnavailable (transient) and StorageRefused (permanent)."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """Make the URI of a key in this storage."""

    @abstractmethod
    def key(self, uri: str) -> str:
        """Give the key of a URI.

        Raises:
            ForeignURI: the URI lies outside the configured bucket and prefix, or folder.
        """

    @abstractmethod
    def stat(self, uri: str) -> StoredObject | None:
        """Look up the object at the URI; gives None where there is none. Raises ForeignURI."""

    @abstractmethod
    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        """Write the rest of `source` to the key, atomically: readers see the whole object or none.

        Args:
            key: of the object.
            source: read from where it stands.
            content_type: as in MIME.
            filename: ASCII name under which browsers save it; by default they take the end of the key.
        """

    @abstractmethod
    def open(self, uri: str, *, start: int = 0) -> ByteStream:
        """Open the object's bytes from offset `start`, which lies inside it. Raises ForeignURI, MediaNotFound."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Delete the object, if it is there. Raises ForeignURI."""

    def delete_many(self, uris: Sequence[str]) -> None:
        """Delete those of the objects that are there. Raises ForeignURI."""
        for uri in uris:
            self.delete(uri)

    @abstractmethod
    def touch(self, uri: str) -> bool:
        """Make the object as young as one just written; gives False where there is none. Raises ForeignURI."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ListedObject]:
        """List the objects whose keys begin with `prefix`, in no order. Raises ForeignURI."""

    def clock(self) -> float | None:
        """Read the storage's own clock as Unix time, to the second; None where it has none."""
        return None

    @abstractmethod
    def url(self, uri: str, lifetime: int) -> str:
        """Make a link to the object that needs no credentials for `lifetime` seconds. Raises ForeignURI."""

    def get(self, uri: str, *, max_bytes: int) -> bytes:
        """Read the object's bytes.

        Raises:
            ForeignURI: outside the configured storage.
            MediaNotFound: nothing there.
            MediaTooLarge: more than `max_bytes`; no more than that is read.
        """
        with self.open(uri) as stream:
            data = read_at_most(stream, max_bytes)
        if len(data) > max_bytes:
            raise MediaTooLarge(f"the object is over {max_bytes:,} bytes", "uri", "Send a smaller file")
        return data

    def put_input(self, media: Media, source: BinaryIO) -> Media:
        """Upload media under its own hash, unless the same bytes are stored already: those are kept young."""
        stored = self.stat(media.uri)
        if stored is None or stored.bytes != media.bytes or not self.keep_young(stored):
            self.put(self.key(media.uri), source, content_type="application/octet-stream")
        return media

    def keep_young(self, stored: StoredObject) -> bool:
        """Touch an object that was looked up unless it is young; gives False where it is gone by now."""
        return (stored.age is not None and stored.age < TOUCH_AFTER) or self.touch(stored.uri)

    def describe_input(self, source: BinaryIO) -> Media:
        """Make the media record of a seekable stream: hash, size and the URI that it will have. Uploads nothing."""
        # Not hashlib.file_digest: it leaves files in memory at their start, and nothing tells their size then.
        digest, size = hashlib.sha256(), 0
        source.seek(0)
        while chunk := source.read(2**20):
            digest.update(chunk)
            size += len(chunk)
        source.seek(0)
        sha256 = digest.hexdigest()
        return Media(uri=self.uri(INPUT_KEY.format(shard=sha256[:2], sha256=sha256)), sha256=sha256, bytes=size)


def read_at_most(stream: ByteStream, limit: int) -> bytes:
    """Read up to `limit + 1` bytes, so that the caller sees whether there were more than `limit`."""
    chunks: list[bytes] = []
    left = limit + 1
    while left > 0 and (chunk := stream.read(min(left, 2**20))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def verify_sha256(media: Media, data: bytes, field: str) -> None:
    """Compare fetched bytes with the hash in the job, where it has one.

    Raises:
        MediaError: other bytes than those that were uploaded.
    """
    if media.sha256 is not None and hashlib.sha256(data).hexdigest() != media.sha256:
        raise MediaError("the object in storage is not the file that was uploaded", field, "Submit the job again")
