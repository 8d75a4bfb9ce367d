"""A file that a job made, as users hold it: where it lies, and its bytes."""

from __future__ import annotations

import builtins
import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from omnifleet_shared.errors import ForeignURI, MediaError, StorageRefused
from omnifleet_shared.schema.results import Artifact, VideoArtifact
from omnifleet_shared.storage import Storage

from .download import download


class StoredFile(ABC):
    """A file that a job made: what audio and video have in common. Nothing is downloaded before `read` or `save`."""

    _field: ClassVar[str]

    def __init__(self, artifact: Artifact | VideoArtifact, storage: Storage, url_lifetime: int) -> None:
        self._stored = artifact
        self._storage = storage
        self._url_lifetime = url_lifetime

    @property
    def uri(self) -> str:
        """URI of the file in the storage."""
        return self._stored.uri

    @property
    def url(self) -> str:
        """A link that works without credentials.

        Signed anew, for `FleetSettings.url_lifetime` seconds, where this process has access to the storage; else the
        one that the worker signed when the job was done.
        """
        try:
            return self._storage.url(self.uri, self._url_lifetime)
        except (ForeignURI, StorageRefused):
            return self._stored.url

    @property
    def sha256(self) -> str:
        """Hash of the file, in hexadecimal digits."""
        return self._stored.sha256

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self._stored.bytes

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self._stored.seconds

    def read(self) -> builtins.bytes:
        """Return the file's bytes, from the storage, or by the worker's link where this process has no access to it.

        Raises:
            StorageUnavailable: the storage does not answer.
            StorageRefused: no access, and the link has expired.
            MediaNotFound: it was deleted since.
            MediaError: other bytes than the job made.
        """
        data = self._download()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise MediaError("what was downloaded is not what the job made", self._field, "Download it again")
        return data

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a file, whole or not at all, and return its path."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._stored.format} {self.seconds:g} s {self.uri}>"

    def _download(self) -> builtins.bytes:
        try:
            return self._storage.get(self.uri, max_bytes=self.bytes)
        except (ForeignURI, StorageRefused):
            return download(self._stored.url, self.bytes)
