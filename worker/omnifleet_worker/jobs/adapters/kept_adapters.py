"""The adapters that jobs name, loaded once a worker and kept on the device; those named least recently go first."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import LRUCache
from omnifleet_shared.schema.adapter import AdapterManifest, JobAdapter, UsedAdapter
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.adapters import CONFIG, WEIGHTS, AdapterFiles, check_licence

from ...models.audio_omni.adapters.low_rank import AdapterWeights, AppliedAdapter

if TYPE_CHECKING:
    from ...models.audio_omni.adapters.reader import AdapterReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """An adapter on the device, and what is said of it."""

    manifest: AdapterManifest
    weights: AdapterWeights


class KeptAdapters:
    """Loads and keeps adapters. Thread-safe; the threads of jobs load them, and the engine's never waits for it.

    Args:
        storage: of the fleet.
        reader: of the model.
    """

    def __init__(self, storage: Storage, reader: AdapterReader) -> None:
        self._files = AdapterFiles(storage)
        self._reader = reader
        self._kept: LRUCache[str, LoadedAdapter] = LRUCache(reader.max_bytes, lambda adapter: adapter.weights.nbytes)
        self._lock = threading.Lock()
        self._loading = threading.Lock()

    def load(self, named: JobAdapter, *, commercial: bool) -> tuple[AppliedAdapter, UsedAdapter]:
        """Return an adapter as a job uses it, and as its result names it.

        Args:
            named: by the job.
            commercial: whether the job is for commercial use.

        Raises:
            AdapterNotFound: it is not there.
            AdapterInvalid: it is not what was added, does not fit the model, or is too large.
            LicenceRefused: its licence does not allow what the job is for.
            StorageUnavailable, StorageRefused: the storage.
        """
        adapter = self._find(named.sha256)
        if adapter is None:
            with self._loading:  # one at a time: a file may take a gigabyte of the host's memory
                adapter = self._find(named.sha256) or self._load(named)
        check_licence(named.name, adapter.manifest, commercial=commercial)
        applied = AppliedAdapter(sha256=named.sha256, scale=named.scale, weights=adapter.weights)
        return applied, UsedAdapter(**named.model_dump(), licence=adapter.manifest.licence)

    def _find(self, sha256: str) -> LoadedAdapter | None:
        with self._lock:
            found: LoadedAdapter | None = self._kept.get(sha256)
        return found

    def _load(self, named: JobAdapter) -> LoadedAdapter:
        start = time.monotonic()
        manifest = self._files.manifest(named.sha256)
        content = self._files.content(named.sha256, manifest)
        weights = self._reader.read(content[CONFIG], content[WEIGHTS])
        loaded = LoadedAdapter(manifest, weights)
        with self._lock, suppress(ValueError):
            self._kept[named.sha256] = loaded
        seconds = time.monotonic() - start
        about = {"adapter": named.name, "sha256": named.sha256, "bytes": weights.nbytes, "seconds": seconds}
        logger.info("adapter %s loaded in %.1f s", named.name, seconds, extra={"action": "adapter_loaded", **about})
        return loaded
