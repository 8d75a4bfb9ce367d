"""Adapters as jobs name them: by a name, and by the hash of what has that name now."""

from __future__ import annotations

import re

from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.keys import ADAPTER_KEY
from omnifleet_shared.schema.adapter import ADAPTER_NAME, MOST_SCALE, AdapterManifest, JobAdapter
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.adapters import AdapterFiles, check_licence
from pydantic import ValidationError

_REFERENCE = re.compile(rf"({ADAPTER_NAME})(?:@sha256:([0-9a-f]{{64}}))?")
_FOLDER = ADAPTER_KEY.partition("/")[0] + "/"


class NamedAdapters:
    """Finds the adapters that requests name. Thread-safe.

    Args:
        storage: of the fleet.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._files = AdapterFiles(storage)

    def find(self, reference: object, scale: object = None, *, commercial: bool = False) -> JobAdapter | None:
        """Return the adapter of a job; None where none is named.

        Args:
            reference: `NAME`, `NAME@sha256:HASH`, or either behind the storage's `s3://bucket/adapters/`.
            scale: how strongly it is applied; 1 by default.
            commercial: whether the job is for commercial use.

        Raises:
            AdapterNotFound: there is none of that name, or of that hash.
            InvalidJob: no such reference, a scale that is out of range or has no adapter.
            ForeignURI: the storage is another one.
            LicenceRefused: the adapter's licence does not allow what the job is for.
            StorageUnavailable, StorageRefused: the storage.
        """
        if reference is None:
            if scale is not None:
                raise InvalidJob(
                    "there is no adapter to apply so strongly", "adapter_scale", "Name one, or leave it out"
                )
            return None
        name, sha256 = self._parse(reference)
        manifest: AdapterManifest
        if sha256 is None:
            manifest = record = self._files.read(name)
            sha256 = record.sha256
        else:
            manifest = self._files.manifest(sha256)
        check_licence(name, manifest, commercial=commercial)
        try:
            return JobAdapter.model_validate({"name": name, "sha256": sha256, "scale": 1.0 if scale is None else scale})
        except ValidationError as error:
            remedy = f"Give a number from {-MOST_SCALE:g} to {MOST_SCALE:g}"
            raise InvalidJob(f"{str(scale)[:80]!r} will not do", "adapter_scale", remedy) from error

    def _parse(self, reference: object) -> tuple[str, str | None]:
        text = reference if isinstance(reference, str) else ""
        if "://" in text:
            text = self._storage.key(text).removeprefix(_FOLDER)
        found = _REFERENCE.fullmatch(text)
        if found is None:
            remedy = "Give the name of one of adapters.list, or that with @sha256: and its hash behind it"
            raise InvalidJob(f"{str(reference)[:120]!r} names no adapter", "adapter", remedy)
        return found[1], found[2]
