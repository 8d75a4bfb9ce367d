"""A checkpoint from object storage on a machine's own disk, fetched once for all the processes there.

Files are written beside the folder under a name of their own, compared with the manifest, and the folder appears in
one step when all of them are whole. So whatever ends a fetch, the next one goes on with the bytes that are there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from filelock import FileLock, Timeout
from omnifleet_shared.errors import CheckpointInvalid, InvalidSetting, MediaNotFound, StorageUnavailable
from omnifleet_shared.settings import MEBIBYTE
from omnifleet_shared.storage import Storage
from rich.progress import Progress, TaskID

from ..retry import retry_until
from .code_files import fetch_code
from .manifest import COMPILED, MANIFEST, FileRecord, Manifest, all_faults, parse_manifest, size_faults

FILES_AT_ONCE = 4
"""One connection alone seldom fills a network card."""
TRIES = 3
"""Downloads of a file whose SHA-256 is not the manifest's."""
CHUNK = MEBIBYTE // 4
"""Bytes read and written at once; a process that ends loses at most one chunk."""


class _Stopped(Exception):
    """Raised to stop a download where another file failed."""


@dataclass(frozen=True, kw_only=True)
class CheckpointCache:
    """Fetches one checkpoint to a folder of this machine; several processes may call `fill`, and again after a crash.

    Attributes:
        source: storage whose root is the checkpoint.
        folder: where the checkpoint is to be; its parent is made if need be, and must be on the same disk.
        progress: shows how far it is.
        timeout: seconds without a byte, after which storage that does not answer is an error.
        compiled: fetch what is stored of compiled code for this installation too, which workers then run.
    """

    source: Storage
    folder: Path
    progress: Progress
    timeout: float = 120.0
    compiled: bool = False
    _stopping: threading.Event = field(default_factory=threading.Event)

    def fill(self, *, verify: bool = False) -> Manifest:
        """Fetch what is not there yet, and wait where another process does so already.

        Args:
            verify: compare the SHA-256 of every file of a folder that is there already, which takes minutes. Sizes
                are compared always, and what was fetched is never taken without its SHA-256.

        Returns:
            The manifest of the checkpoint.

        Raises:
            CheckpointInvalid: what is stored is no checkpoint or not as its manifest says, or the disk is full.
            InvalidSetting: the folder holds something else, or its disk has too little room.
            StorageUnavailable, StorageRefused, MediaNotFound: from the storage.
        """
        text = self._read_manifest()
        manifest = parse_manifest(text, self.source.uri(MANIFEST))
        _check_paths(manifest)
        with self._typed_write_errors(), self._locked():
            if not self._is_complete(text, manifest, verify):
                self._stage(text)
                self._check_room(manifest)
                self._fetch_files(manifest)
                self._publish()
            if self.compiled:
                self._fetch_code()
        return manifest

    @cached_property
    def _staging(self) -> Path:
        return self.folder.with_name(f".{self.folder.name}.fetching")

    def _read_manifest(self) -> bytes:
        uri = self.source.uri(MANIFEST)

        def read() -> bytes:
            return self.source.get(uri, max_bytes=16 * MEBIBYTE)

        try:
            return retry_until(read, StorageUnavailable, self.timeout)
        except MediaNotFound as error:
            remedy = (
                "Name a converted checkpoint's folder; `omnifleet-worker write-manifest` writes one for other models"
            )
            raise CheckpointInvalid(f"there is no {uri}", MANIFEST, remedy) from error

    @contextmanager
    def _typed_write_errors(self) -> Iterator[None]:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            yield
        except OSError as error:
            remedy = "Make room or mend its rights, then run the same command again: it goes on where it stopped"
            raise CheckpointInvalid(f"{self.folder} cannot be written: {error}", "DIR", remedy) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The kernel releases the lock when its process ends, however it ends.
        lock = FileLock(self.folder.with_name(f".{self.folder.name}.lock"))
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            self._print(f"another process fetches {self.folder}: waiting for it")
            held = lock.acquire()
        with held:
            yield

    def _is_complete(self, text: bytes, manifest: Manifest, verify: bool) -> bool:
        """Whether the checkpoint is there; a damaged one is taken out of service, and what is whole of it is kept."""
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return False
        found = self.folder / MANIFEST
        if not found.is_file() or found.read_bytes() != text:
            problem = f"{self.folder} holds something other than {self.source.uri('')}"
            raise InvalidSetting(problem, "DIR", "Name a new folder, such as one with the revision in its name")
        faults = all_faults(self.folder, self.progress) if verify else size_faults(self.folder, manifest)
        if faults:
            self._drop_faulty_files(faults)
        return not faults

    def _drop_faulty_files(self, faults: dict[str, str]) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        self.folder.rename(self._staging)
        for path, fault in faults.items():
            self._print(f"{path} {fault}: fetching it again")
            (self._staging / path).unlink(missing_ok=True)

    def _stage(self, text: bytes) -> None:
        """Begin anew, unless what an earlier run left is of the same checkpoint."""
        staged = self._staging / MANIFEST
        if not staged.is_file() or staged.read_bytes() != text:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging.mkdir()
            staged.write_bytes(text)

    def _check_room(self, manifest: Manifest) -> None:
        needed = sum(record.bytes - self._staged_bytes(path, record) for path, record in manifest.items())
        free = shutil.disk_usage(self._staging).free
        if free < needed:
            problem = f"{self.folder.parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are to be fetched"
            raise InvalidSetting(problem, "DIR", "Make room, or name a folder on another disk")

    def _staged_bytes(self, path: str, record: FileRecord) -> int:
        if (self._staging / path).is_file():
            return record.bytes
        part = _part(self._staging / path)
        return min(part.stat().st_size, record.bytes) if part.is_file() else 0

    def _fetch_files(self, manifest: Manifest) -> None:
        task = self.progress.add_task("fetching", total=sum(record.bytes for record in manifest.values()))
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            waiting = [pool.submit(self._fetch, path, record, task) for path, record in manifest.items()]
            try:
                for future in as_completed(waiting):
                    future.result()
            except BaseException:
                self._stopping.set()
                raise

    def _fetch(self, path: str, record: FileRecord, task: TaskID) -> None:
        target = self._staging / path
        if target.is_file():  # it got its name only after its SHA-256 was compared
            return self.progress.advance(task, record.bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(TRIES):
            if self._download(path, record, task) == record.sha256:
                _part(target).replace(target)
                return self._print(f"{path} is whole, {record.bytes / 1e6:,.1f} MB")
            self._print(f"{path} has another SHA-256 than its manifest says: fetching it anew")
            self.progress.advance(task, -_part(target).stat().st_size)
            _part(target).unlink()
        problem = f"{self.source.uri(path)} is not the file that its manifest says, not even at the third time"
        raise CheckpointInvalid(problem, path, "Upload the checkpoint again")

    def _download(self, path: str, record: FileRecord, task: TaskID) -> str:
        """Complete the file's part and give its SHA-256; while bytes come, storage may fail as often as it does."""
        part = _part(self._staging / path)
        part.touch()
        with part.open("r+b") as file:
            sha256 = hashlib.sha256()
            while chunk := file.read(CHUNK):
                sha256.update(chunk)
                self.progress.advance(task, len(chunk))

            def download() -> None:
                self._receive(path, record, file, sha256.update, task)

            while (before := file.tell()) < record.bytes:
                try:
                    retry_until(download, StorageUnavailable, self.timeout)
                    break
                except StorageUnavailable:
                    if file.tell() == before:
                        raise
            file.flush()
            os.fsync(file.fileno())
        return sha256.hexdigest()

    def _receive(
        self, path: str, record: FileRecord, file: BinaryIO, hash: Callable[[bytes], None], task: TaskID
    ) -> None:
        with self.source.open(self.source.uri(path), start=file.tell()) as stream:
            # One byte more than there should be is enough for the SHA-256 to be another.
            while chunk := stream.read(min(CHUNK, record.bytes + 1 - file.tell())):
                file.write(chunk)
                hash(chunk)
                self.progress.advance(task, len(chunk))
                if self._stopping.is_set():
                    raise _Stopped

    def _fetch_code(self) -> None:
        for name in retry_until(lambda: fetch_code(self.source, self.folder), StorageUnavailable, self.timeout):
            self._print(f"{COMPILED}/{name} is there")

    def _publish(self) -> None:
        if self.folder.exists():
            self.folder.rmdir()  # empty, as was seen
        self._staging.rename(self.folder)

    def _print(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _check_paths(manifest: Manifest) -> None:
    for path in manifest:
        parts = PurePosixPath(path).parts
        # Compiled code only comes where it is asked for: a manifest that listed it would bring it to any worker.
        if not parts or path.startswith("/") or ".." in parts or parts[0] in (MANIFEST, COMPILED):
            problem = f"{path!r} is no path inside a checkpoint"
            raise CheckpointInvalid(problem, MANIFEST, "Convert the checkpoint again, and upload it whole")
