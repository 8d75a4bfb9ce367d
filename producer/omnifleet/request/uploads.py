"""Media as users pass them: described at once, uploaded only when the request around them is known to be sound."""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from omnifleet_shared.errors import (
    ForeignURI,
    InvalidJob,
    MediaEmpty,
    MediaNotFound,
    MediaTooLarge,
    MediaUnreadable,
    StorageUnavailable,
)
from omnifleet_shared.keys import COLLECTED
from omnifleet_shared.schema.base import Media
from omnifleet_shared.settings import MEBIBYTE
from omnifleet_shared.storage import Storage

MediaSource = str | os.PathLike[str] | bytes | bytearray | BinaryIO
"""A local path, bytes, an open binary file (read from its beginning, left open), or a URI inside the storage."""

SPOOL_IN_MEMORY = 16 * MEBIBYTE
CHUNK = MEBIBYTE
UNREAD_KEY = "inputs/unread"
"""Stands for local media that were not read."""
DELETION_POLL = 0.2
"""Seconds between looks whether something is still about to be deleted."""
DELETION_PATIENCE = 30.0
"""Seconds to wait until it no longer is: a batch of deletions takes one or two."""

Pending = Callable[[Sequence[str]], bool]
"""Whether any of the objects of these URIs is about to be deleted."""


class Uploads:
    """Describes and uploads the media of one request. Leaving its context closes the files that it opened.

    Args:
        storage: where the media go.
        max_bytes: largest file that is taken.
        pending_deletion: whether any of these URIs is about to be deleted; by default nothing ever is.
        look_only: local files are looked for, but neither read nor uploaded; their records are no good.
    """

    def __init__(
        self,
        storage: Storage,
        max_bytes: int,
        pending_deletion: Pending = lambda _: False,
        *,
        look_only: bool = False,
    ) -> None:
        self._storage = storage
        self._max_bytes = max_bytes
        self._pending_deletion = pending_deletion
        self._look_only = look_only
        self._opened = ExitStack()
        self._described: dict[int, Media] = {}
        self._waiting: list[tuple[Media, BinaryIO]] = []
        self._named: dict[str, str] = {}
        self._local: dict[str, BinaryIO] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def describe(self, source: MediaSource, field: str) -> Media:
        """Return the media record of what was passed as the argument `field`. Nothing is uploaded yet.

        Raises:
            MediaNotFound: no such file or object.
            MediaUnreadable: a folder, or a file that cannot be read.
            MediaEmpty: 0 bytes.
            MediaTooLarge: more bytes than the limit.
            ForeignURI: a URI outside the storage.
            InvalidJob: nothing of the kinds of `MediaSource`.
        """
        # The same stream may be both `audio` and `video`, and one that cannot seek is read only once.
        if id(source) not in self._described:
            self._described[id(source)] = self._describe(source, field)
        return self._described[id(source)]

    def describe_all(self, sources: MediaSource | Sequence[MediaSource], field: str) -> tuple[Media, ...]:
        """Return the records of one source or a list of them; `field` is numbered in errors about a list."""
        if isinstance(sources, list | tuple):
            many = cast(Sequence[MediaSource], sources)
            return tuple(self.describe(source, f"{field}.{number}") for number, source in enumerate(many))
        return (self.describe(cast(MediaSource, sources), field),)

    def open(self, source: MediaSource, field: str) -> BinaryIO:
        """Open a local file, bytes or a stream, at its beginning, and check its size. Raises as `describe`."""
        with _readable(field):
            stream = self._stream(source, field)
            self._check_size(stream.seek(0, os.SEEK_END), field)
            stream.seek(0)
        return stream

    def local(self, media: Media) -> BinaryIO | None:
        """Return the open file of a record that was described from one, at its beginning; None of stored media.

        Whoever reads it leaves it there, for it is uploaded afterwards.
        """
        stream = self._local.get(media.uri)
        if stream is not None:
            stream.seek(0)
        return stream

    def send(self) -> None:
        """Upload what is not in the storage yet, and keep young what is.

        Raises:
            MediaNotFound: an object that was there when it was described is gone.
            StorageUnavailable, StorageRefused: the storage; StorageUnavailable too where what is needed is about to be
                deleted for longer than `DELETION_PATIENCE`.
            BrokerUnavailable: Redis, which is asked for that.
        """
        uris = [media.uri for media, _ in self._waiting] + list(self._named)
        until = time.monotonic() + DELETION_PATIENCE
        if self._waiting:
            self._pending_deletion(uris)  # whatever it says: without Redis nothing is uploaded that nobody would name
        self._store()
        # Afterwards, not before: see `Deletions`.
        while self._pending_deletion(uris):
            if time.monotonic() > until:
                raise StorageUnavailable("what the job needs is being deleted", "storage", "Try again in some minutes")
            time.sleep(DELETION_POLL)
            self._store()

    def _store(self) -> None:
        for media, stream in self._waiting:
            stream.seek(0)
            self._storage.put_input(media, stream)
        for uri, field in self._named.items():
            found = self._storage.stat(uri)
            if found is None or not self._storage.keep_young(found):
                raise _not_stored(uri, field)

    def _describe(self, source: MediaSource, field: str) -> Media:
        if isinstance(source, str) and "://" in source:
            return self._stored(source, field)
        stream = self.open(source, field)
        with _readable(field):
            if self._look_only:
                media = Media(uri=self._storage.uri(UNREAD_KEY))
                self._local[media.uri] = stream
                return media
            media = self._storage.describe_input(stream)
        self._local[media.uri] = stream
        self._waiting.append((media, stream))
        return media

    def _stored(self, uri: str, field: str) -> Media:
        shown = _shown(uri)
        scheme = uri.partition("://")[0].lower()
        if scheme not in ("s3", "file"):
            remedy = "Download it and pass the file"
            raise ForeignURI(f"{shown} is not in the storage: {scheme} addresses are not fetched", field, remedy)
        try:
            found = self._storage.stat(uri)
        except ForeignURI as error:
            remedy = "Pass a local path, without file://, or bytes to have them uploaded"
            raise ForeignURI(error.problem, field, remedy) from error
        if found is None:
            raise _not_stored(uri, field)
        self._check_size(found.bytes, field)
        if self._storage.key(uri).startswith(COLLECTED):
            self._named[uri] = field
        return Media(uri=uri, bytes=found.bytes)

    def _stream(self, source: MediaSource, field: str) -> BinaryIO:
        if isinstance(source, str | os.PathLike):
            return self._seekable(self._opened.enter_context(_open_file(source, field)))
        if isinstance(source, bytes | bytearray):
            return io.BytesIO(source)
        if isinstance(source, io.TextIOBase):
            raise InvalidJob("the file is open in text mode", field, 'Open it with mode "rb"')
        if not callable(getattr(source, "read", None)):
            problem = f"{type(source).__name__} is no media"
            raise InvalidJob(problem, field, "Pass a path, bytes, an open binary file or a URI inside the storage")
        return self._seekable(source)

    def _seekable(self, stream: BinaryIO) -> BinaryIO:
        seekable: Any = getattr(stream, "seekable", None)
        if seekable is not None and seekable() and hasattr(stream, "readinto"):
            return stream
        return self._spool(stream)

    def _spool(self, stream: BinaryIO) -> BinaryIO:
        spool = tempfile.SpooledTemporaryFile(SPOOL_IN_MEMORY)  # noqa: SIM115 (closed with the request)
        self._opened.callback(spool.close)
        while spool.tell() <= self._max_bytes and (chunk := stream.read(CHUNK)):
            spool.write(chunk)
        return cast(BinaryIO, spool)

    def _check_size(self, size: int, field: str) -> None:
        if size == 0:
            raise MediaEmpty("it has 0 bytes", field, "Check how the file was made")
        if size > self._max_bytes:
            problem = f"it is larger than {self._max_bytes:,} bytes"
            remedy = (
                "Send a shorter or compressed recording, or raise OMNIFLEET_MAX_INPUT_BYTES here and in the workers"
            )
            raise MediaTooLarge(problem, field, remedy, {"limit": self._max_bytes})


def _shown(uri: str) -> str:
    return repr(uri.partition("?")[0][:200])


def _not_stored(uri: str, field: str) -> MediaNotFound:
    return MediaNotFound(f"nothing is stored at {_shown(uri)}", field, "Upload it there, or pass the local file")


def _open_file(path: str | os.PathLike[str], field: str) -> BinaryIO:
    shown = repr(os.fspath(path)[:200])
    try:
        return Path(path).open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaNotFound(f"there is no file {shown}", field, "Check the path") from error
    except IsADirectoryError as error:
        raise MediaUnreadable(f"{shown} is a folder", field, "Pass one file") from error
    except (OSError, ValueError) as error:
        raise MediaUnreadable(f"{shown} cannot be opened: {error}", field, "Check the path and its rights") from error


@contextmanager
def _readable(field: str) -> Generator[None]:
    try:
        yield
    except TypeError as error:
        raise InvalidJob(f"what it reads is not bytes: {error}", field, "Pass a file open in binary mode") from error
    except (OSError, ValueError) as error:
        raise MediaUnreadable(f"it cannot be read: {error}", field, "Pass an open file that can be read") from error
