"""A local folder as object storage: for one machine, or a folder that all machines mount."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import quote, unquote, urlsplit

from ..atomic_file import PART_PREFIX, write_atomically
from ..errors import DiskFull, ForeignURI, MediaNotFound, StorageRefused, StorageUnavailable
from .base import ByteStream, ListedObject, Storage, StoredObject


class FolderStorage(Storage):
    """Stores objects as files below one folder, which is made on first use; its URIs are `file://`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().resolve()

    def uri(self, key: str) -> str:
        return f"file://{quote(str(self.folder / key))}"

    def key(self, uri: str) -> str:
        try:
            parts = urlsplit(uri)
            if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
                raise self._foreign(uri)
            # resolve() follows links and `..`, so that neither leads out of the folder.
            path = Path(unquote(parts.path)).resolve()
            key = path.relative_to(self.folder).as_posix()
        except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            raise self._foreign(uri) from error
        if key == ".":
            raise self._foreign(uri)
        return key

    def stat(self, uri: str) -> StoredObject | None:
        path = self._path(uri)
        with _typed_errors():
            if not path.is_file():
                return None
            found = path.stat()
            return StoredObject(uri=uri, bytes=found.st_size, age=time.time() - found.st_mtime)

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        path = self._path(self.uri(key))
        with _typed_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_atomically(path, mode=0o644) as file:
                shutil.copyfileobj(source, file)
            return StoredObject(uri=self.uri(key), bytes=path.stat().st_size)

    def open(self, uri: str, *, start: int = 0) -> ByteStream:
        path = self._path(uri)
        with _typed_errors():
            if not path.is_file():
                raise MediaNotFound(f"nothing is stored at {uri}", "uri", "Upload the file first")
            file = path.open("rb")
            file.seek(start)
            return _TypedFile(file)

    def delete(self, uri: str) -> None:
        path = self._path(uri)
        with _typed_errors():
            path.unlink(missing_ok=True)

    def touch(self, uri: str) -> bool:
        path = self._path(uri)
        with _typed_errors():
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
            return True

    def list(self, prefix: str) -> Iterator[ListedObject]:
        start = (self.folder / prefix.rpartition("/")[0]).resolve()
        if not start.is_relative_to(self.folder):
            raise self._foreign(prefix)
        with _typed_errors():
            for path in start.rglob("*"):
                key = path.relative_to(self.folder).as_posix()
                if not key.startswith(prefix) or path.name.startswith(PART_PREFIX) or not path.is_file():
                    continue
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found = path.stat()
                    yield ListedObject(uri=self.uri(key), bytes=found.st_size, modified=found.st_mtime)

    def url(self, uri: str, lifetime: int) -> str:
        return self.uri(self.key(uri))

    def _path(self, uri: str) -> Path:
        return self.folder / self.key(uri)

    def _foreign(self, uri: str) -> ForeignURI:
        problem = f"{uri[:200]!r} is outside the storage file://{self.folder}"
        return ForeignURI(problem, "uri", "Upload the file, or put it there")


class _TypedFile:
    """A file whose read errors are typed: its folder, mounted from elsewhere, can go away while it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        with _typed_errors():
            return self._file.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        remedy = "Give this user the right to write there, or name another folder in OMNIFLEET_STORAGE"
        raise StorageRefused(f"the folder refuses: {error}", "storage", remedy) from error
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise StorageRefused(f"the folder refuses: {error}", "uri", "Use a shorter name") from error
        if error.errno == errno.EROFS:
            remedy = "Mount it for writing, or name another folder in OMNIFLEET_STORAGE"
            raise StorageRefused(f"the folder is read-only: {error}", "storage", remedy) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Make room, with `omnifleet storage gc` for instance, or raise the quota"
            raise DiskFull(f"the folder has no room: {error}", "storage", remedy) from error
        remedy = "See that its disk is mounted and answers"
        raise StorageUnavailable(f"the folder does not answer: {error}", "storage", remedy) from error
