"""The interface of object storage, and what holds for every home of it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from ..errors import MediaError, MediaTooLarge
from ..keys import INPUT_KEY
from ..schema.base import Media


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An object that is there."""

    uri: str
    bytes: int


class ByteStream(Protocol):
    """What is needed of an opened object."""

    def read(self, size: int, /) -> bytes: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


class Storage(ABC):
    """Media by URI. Every method may raise StorageUnavailable (transient) and StorageRefused (permanent)."""

    @abstractmethod
    def uri(self, key: str) -> str:
        """The URI of a key in this storage."""

    @abstractmethod
    def key(self, uri: str) -> str:
        """The key of a URI.

        Raises:
            ForeignURI: the URI lies outside the configured bucket and prefix, or folder.
        """

    @abstractmethod
    def stat(self, uri: str) -> StoredObject | None:
        """The object at the URI, or None where there is none. Raises ForeignURI."""

    @abstractmethod
    def put(self, key: str, source: BinaryIO, *, content_type: str) -> StoredObject:
        """Write the rest of `source` to the key; visible whole or not at all."""

    @abstractmethod
    def open(self, uri: str, *, start: int = 0) -> ByteStream:
        """A stream of the object's bytes from `start` on, which lies inside it. Raises ForeignURI, MediaNotFound."""

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Remove the object, if it is there. Raises ForeignURI."""

    def clock(self) -> float | None:
        """The Unix time that the storage's own clock shows, to the second; None where it has none."""
        return None

    @abstractmethod
    def url(self, uri: str, lifetime: int) -> str:
        """A link to the object that needs no credentials for `lifetime` seconds. Raises ForeignURI."""

    def get(self, uri: str, *, max_bytes: int) -> bytes:
        """The object's bytes.

        Raises:
            ForeignURI: outside the configured storage.
            MediaNotFound: nothing there.
            MediaTooLarge: more than `max_bytes`, found out without reading further.
        """
        with self.open(uri) as stream:
            data = read_at_most(stream, max_bytes)
        if len(data) > max_bytes:
            raise MediaTooLarge(f"the object is over {max_bytes:,} bytes", "uri", "Send a smaller file")
        return data

    def put_input(self, media: Media, source: BinaryIO) -> Media:
        """Upload media under its own hash, unless the same bytes are already there."""
        stored = self.stat(media.uri)
        if stored is None or stored.bytes != media.bytes:
            self.put(self.key(media.uri), source, content_type="application/octet-stream")
        return media

    def describe_input(self, source: BinaryIO) -> Media:
        """The media record of a seekable stream: its hash, size and the URI that it will have. Nothing is uploaded."""
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
    """Up to `limit + 1` bytes, so that the caller sees whether there were more than `limit`."""
    chunks: list[bytes] = []
    left = limit + 1
    while left > 0 and (chunk := stream.read(min(left, 2**20))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def verify_sha256(media: Media, data: bytes, field: str) -> None:
    """Compare fetched bytes with what the job says they are.

    Raises:
        MediaError: other bytes than those that were uploaded.
    """
    if media.sha256 is not None and hashlib.sha256(data).hexdigest() != media.sha256:
        raise MediaError("the object in storage is not the file that was uploaded", field, "Submit the job again")
