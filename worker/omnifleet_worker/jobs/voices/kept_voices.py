"""Named voices as they are used: the samples that the model hears, and their words, kept between jobs and workers.

In memory for an hour, and in the storage beside the voice's recording for all workers of the same model. So the
recording is fetched, decoded and listened to once. Whatever was removed is used by no job, whoever still has it: its
recording is looked for each time.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import numpy as np
from cachetools import TTLCache
from omnifleet_shared.errors import MediaError, OmnifleetError, VoiceNotFound
from omnifleet_shared.schema.base import Media
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.voices import VoiceFiles

from ...models.content_cache import digest
from ...sealed_bytes import seal, unseal

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of what is written below; raised too where a release hears other samples in the same recording."""
MAX_BYTES = 2**24
"""Of one voice in the storage: six seconds are a megabyte."""
MEMORY_BYTES = 64 * 2**20
"""Of all voices in memory, about sixty of them."""
MEMORY_SECONDS = 3600.0
"""For which a voice stays in memory."""


@dataclass(frozen=True, eq=False)
class KeptVoice:
    """What is heard of a voice.

    Attributes:
        wave: its last seconds, mono float32 [n] at 44.1 kHz.
        text: what the model heard in it; None where it was never asked.
    """

    wave: np.ndarray
    text: str | None

    def encode(self, fingerprint: str) -> bytes:
        """Serialise and seal it."""
        body = io.BytesIO()
        body.write(json.dumps({"text": self.text}).encode() + b"\n")
        np.save(body, self.wave, allow_pickle=False)
        return seal(body.getvalue(), fingerprint)

    @classmethod
    def decode(cls, data: bytes, fingerprint: str) -> Self | None:
        """Read what `encode` wrote; None where it is damaged, or of another fingerprint."""
        body = unseal(data, fingerprint)
        if body is None:
            return None
        stream = io.BytesIO(body)
        text: str | None = json.loads(stream.readline())["text"]
        return cls(np.load(stream, allow_pickle=False), text)


class KeptVoices:
    """Keeps voices in memory and in the storage. Thread-safe.

    Args:
        storage: of the fleet.
        model: what of the model decides what it hears: name, revision, precision.
    """

    def __init__(self, storage: Storage, model: tuple[str, ...]) -> None:
        self._storage = storage
        self._files = VoiceFiles(storage)
        self._model = model
        self._memory: TTLCache[str, KeptVoice] = TTLCache(MEMORY_BYTES, MEMORY_SECONDS, time.monotonic, _size)
        self._lock = threading.Lock()

    def name_of(self, media: Media | None) -> str | None:
        """Return the name of the voice that a reference is; None where it is none."""
        return None if media is None else self._files.name_of(media.uri)

    def require(self, media: Media) -> None:
        """Make sure that a voice is there yet.

        Args:
            media: its recording.

        Raises:
            VoiceNotFound: the voice was removed.
            StorageUnavailable, StorageRefused: the storage.
        """
        if self._storage.stat(media.uri) is None:
            raise VoiceNotFound(f"the voice {self.name_of(media)!r} was removed", "ref", "Name another one")

    def find(self, media: Media, track: int | None) -> KeptVoice | None:
        """Find what is kept of a voice; None where nothing is.

        Args:
            media: its recording.
            track: the sound track that is heard of it; None is the default one.

        Raises:
            As `require`.
        """
        uri = self._uri(media, track)
        try:
            self.require(media)
        except VoiceNotFound:
            self._forget(uri)
            raise
        kept = self._remembered(uri)
        if kept is None and (kept := self._read(uri)) is not None:
            self._remember(uri, kept)
        return kept

    def known(self, media: Media, track: int | None) -> KeptVoice | None:
        """Return what this worker has in memory of a voice."""
        return self._remembered(self._uri(media, track))

    def keep(self, media: Media, track: int | None, voice: KeptVoice) -> None:
        """Keep a voice for other jobs and workers. Where the storage is away it is only kept here."""
        uri = self._uri(media, track)
        self._remember(uri, voice)
        try:
            data = io.BytesIO(voice.encode(_fingerprint(uri)))
            self._storage.put(self._storage.key(uri), data, content_type="application/octet-stream")
            # Only now: see `VoiceFiles.remove`.
            if self._storage.stat(media.uri) is None:
                self._forget(uri)
                self._storage.delete(uri)
        except OmnifleetError as error:
            extra = {"action": "voice_not_kept", "voice": self.name_of(media)}
            logger.warning("a voice is kept in this worker alone: %s", error, extra=extra)

    def _read(self, uri: str) -> KeptVoice | None:
        try:
            return KeptVoice.decode(self._storage.get(uri, max_bytes=MAX_BYTES), _fingerprint(uri))
        except MediaError:  # not there yet, or much too large
            return None

    def _uri(self, media: Media, track: int | None) -> str:
        made_of = digest((FORMAT, self._model, media.sha256, track)).hex()
        return f"{media.uri}.{made_of}"

    def _remembered(self, uri: str) -> KeptVoice | None:
        with self._lock:
            kept: KeptVoice | None = self._memory.get(uri)
        return kept

    def _remember(self, uri: str, voice: KeptVoice) -> None:
        with self._lock, suppress(ValueError):  # raised where it alone is larger than the memory
            self._memory[uri] = voice

    def _forget(self, uri: str) -> None:
        with self._lock:
            self._memory.pop(uri, None)


def _fingerprint(uri: str) -> str:
    return uri.rpartition(".")[2]


def _size(voice: KeptVoice) -> int:
    return voice.wave.nbytes + len(voice.text or "")
