"""Adapters in the storage: a record under each name, and the files below the hash of their manifest.

A hash names the same weights for ever. Two names may have the same one, whose files go with the last of them.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from ..errors import (
    AdapterInvalid,
    AdapterNotFound,
    InvalidJob,
    InvalidMessage,
    LicenceRefused,
    MediaNotFound,
    MediaTooLarge,
)
from ..keys import ADAPTER_FILE_KEY, ADAPTER_KEY
from ..schema.adapter import ADAPTER_NAME, Adapter, AdapterManifest
from .base import Storage

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
MAX_RECORD_BYTES = 2**20
MAX_WEIGHTS_BYTES = 2**30
"""Of rank 128, in float32, for the published transformer."""


class AdapterFiles:
    """Reads and writes the adapters of one storage, whose errors every method may raise. Thread-safe.

    Args:
        storage: where they are.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, name: str) -> Adapter:
        """Read the record of an adapter.

        Raises:
            AdapterNotFound: no adapter of that name.
            InvalidJob: no name.
            InvalidMessage: what is stored there is no record.
        """
        uri = self._storage.uri(ADAPTER_KEY.format(name=check_name(name)))
        try:
            return Adapter.model_validate_json(self._storage.get(uri, max_bytes=MAX_RECORD_BYTES))
        except MediaNotFound as error:
            remedy = "Add it with adapters.add; adapters.list has all that there are"
            raise AdapterNotFound(f"there is no adapter {name!r}", "adapter", remedy) from error
        except ValidationError as error:
            problem = f"the record of the adapter {name!r} cannot be read"
            raise InvalidMessage(problem, "adapter", "Add it again") from error

    def manifest(self, sha256: str) -> AdapterManifest:
        """Read what an adapter is.

        Raises:
            AdapterNotFound: there is none of that hash.
            AdapterInvalid: what is stored there has another one.
        """
        data = self._fetch(sha256, MANIFEST, sha256, MAX_RECORD_BYTES)
        try:
            return AdapterManifest.model_validate_json(data)
        except ValidationError as error:
            raise AdapterInvalid("its manifest cannot be read", "adapter", "Add it again") from error

    def content(self, sha256: str, manifest: AdapterManifest) -> Mapping[str, bytes]:
        """Read configuration and weights of an adapter, by their files' names. Raises as `manifest`."""
        return {
            CONFIG: self._fetch(sha256, CONFIG, manifest.config.sha256, MAX_RECORD_BYTES),
            WEIGHTS: self._fetch(sha256, WEIGHTS, manifest.weights.sha256, MAX_WEIGHTS_BYTES),
        }

    def names(self) -> Iterator[str]:
        """Iterate over the names of all adapters, in no order."""
        prefix, suffix = ADAPTER_KEY.split("{name}")
        for found in self._storage.list(prefix):
            name = self._storage.key(found.uri).removeprefix(prefix).removesuffix(suffix)
            if re.fullmatch(ADAPTER_NAME, name):
                yield name

    def write(self, adapter: Adapter, manifest: bytes, content: Mapping[str, bytes]) -> None:
        """Store an adapter: its files first, and its manifest last of them, so that nothing names what is not there."""
        for file, data in (*content.items(), (MANIFEST, manifest)):
            key = ADAPTER_FILE_KEY.format(sha256=adapter.sha256, file=file)
            self._storage.put(key, io.BytesIO(data), content_type="application/octet-stream")
        record = io.BytesIO(adapter.model_dump_json().encode())
        self._storage.put(ADAPTER_KEY.format(name=adapter.name), record, content_type="application/json")

    def remove(self, name: str) -> None:
        """Delete a name, and the files where no other name has them.

        Raises:
            AdapterNotFound: nothing of that name was there.
            InvalidJob: no name.
        """
        adapter = self.read(name)
        self._storage.delete(self._storage.uri(ADAPTER_KEY.format(name=name)))
        if any(self._hash_of(other) == adapter.sha256 for other in list(self.names())):
            return
        # The manifest first: without it there is no adapter.
        for file in (MANIFEST, CONFIG, WEIGHTS):
            self._storage.delete(self._uri(adapter.sha256, file))

    def _hash_of(self, name: str) -> str | None:
        try:
            return self.read(name).sha256
        except AdapterNotFound:  # removed meanwhile
            return None

    def _uri(self, sha256: str, file: str) -> str:
        return self._storage.uri(ADAPTER_FILE_KEY.format(sha256=sha256, file=file))

    def _fetch(self, sha256: str, file: str, expected: str, most: int) -> bytes:
        try:
            data = self._storage.get(self._uri(sha256, file), max_bytes=most)
        except MediaNotFound as error:
            problem = f"nothing is stored of the adapter sha256:{sha256}"
            raise AdapterNotFound(problem, "adapter", "Add it with adapters.add, or name another one") from error
        except MediaTooLarge as error:
            raise AdapterInvalid(f"{file} has more than {most:,} bytes", "adapter", "Train a smaller one") from error
        if hashlib.sha256(data).hexdigest() != expected:
            raise AdapterInvalid(f"{file} is not what was added", "adapter", "Remove the adapter, and add it again")
        return data


def check_name(name: str) -> str:
    """Return the name of an adapter. Raises InvalidJob where it is none, which alone keeps it in its folder."""
    if re.fullmatch(ADAPTER_NAME, name) is None:
        remedy = "Use up to 64 of a-z, 0-9, - and _, a letter or digit first"
        raise InvalidJob(f"{name[:80]!r} is no name of an adapter", "adapter", remedy)
    return name


def check_licence(name: str, manifest: AdapterManifest, *, commercial: bool) -> None:
    """Raise LicenceRefused for a commercial job where the adapter's licence does not allow that."""
    if commercial and not manifest.commercial_use:
        problem = f"the adapter {name} is under {manifest.licence}, which allows no commercial use"
        raise LicenceRefused(problem, "commercial", "Use another adapter, or none", {"licence": manifest.licence})
