"""Named voices: recordings that are stored once, with a consent, and named wherever a reference goes."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any, BinaryIO

from omnifleet_shared.errors import InvalidJob, VoiceNotFound
from omnifleet_shared.schema.jobs import invalid_job
from omnifleet_shared.schema.voice import Voice
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage
from omnifleet_shared.storage.voices import VoiceFiles, check_name
from pydantic import ValidationError

from .caller import caller
from .request.uploads import MediaSource, Uploads


class Voices:
    """The voices of a fleet's storage: `ref="voice:anna"` speaks with the one that was added as `anna`.

    Every client with that storage has the same ones. Every method may raise StorageUnavailable and StorageRefused.
    """

    def __init__(self, settings: FleetSettings, storage: Storage) -> None:
        self._settings = settings
        self._storage = storage
        self._files = VoiceFiles(storage)

    def add(
        self, name: str, audio: MediaSource, *, consent: str, text: str | None = None, added_by: str | None = None
    ) -> Voice:
        """Store a voice under a name. The same once more changes nothing.

        Args:
            name: up to 64 of `a-z`, `0-9`, `-` and `_`.
            audio: a recording of it; its last 6 seconds are used.
            consent: who agreed to what, and where that is written down.
            text: what is said in the recording; the model transcribes it by default.
            added_by: who adds it; `OMNIFLEET_PRODUCER`, or the user and the machine by default.

        Raises:
            InvalidJob: a name that will not do or that another voice has, no consent.
            MediaError, ForeignURI: the recording.
        """
        check_name(name)
        with Uploads(self._storage, self._settings.max_input_bytes) as uploads:
            recording = self._open(uploads, audio)
            described = self._storage.describe_input(recording)
            fields: dict[str, Any] = {
                "name": name,
                "text": text,
                "consent": consent,
                "added_by": added_by or caller(self._settings),
            }
            fields |= {"sha256": described.sha256, "bytes": described.bytes, "added_at": datetime.now(UTC)}
            try:
                voice = Voice.model_validate(fields)
            except ValidationError as error:
                raise invalid_job(error) from error
            return self._existing(voice) or self._write(voice, recording)

    def get(self, name: str) -> Voice:
        """Look a voice up. Raises VoiceNotFound, and InvalidJob for what is no name."""
        return self._files.read(name)

    def list(self) -> tuple[Voice, ...]:
        """List all voices by their names."""
        return tuple(voice for name in sorted(self._files.names()) if (voice := self._found(name)) is not None)

    def remove(self, name: str) -> None:
        """Delete a voice for good: its record, its recording, and all that workers keep of it in the storage.

        Jobs that name it fail with VoiceNotFound from now on, those that are queued already too. Removing it again
        deletes what an interrupted removal left behind.

        Raises:
            VoiceNotFound: there is none of that name.
            InvalidJob: no name.
        """
        self._files.remove(name)

    def _open(self, uploads: Uploads, audio: MediaSource) -> BinaryIO:
        if isinstance(audio, str) and "://" in audio:
            stored = uploads.describe(audio, "audio")
            return io.BytesIO(self._storage.get(stored.uri, max_bytes=self._settings.max_input_bytes))
        return uploads.open(audio, "audio")

    def _existing(self, voice: Voice) -> Voice | None:
        """The same voice, where it is there. Raises InvalidJob where another one has its name."""
        other = self._found(voice.name)
        if other is None:
            return None
        if (other.sha256, other.text, other.consent) != (voice.sha256, voice.text, voice.consent):
            raise InvalidJob(f"there is another voice {voice.name!r}", "name", "Take another name, or remove it first")
        return other

    def _found(self, name: str) -> Voice | None:
        try:
            return self._files.read(name)
        except VoiceNotFound:
            return None

    def _write(self, voice: Voice, recording: BinaryIO) -> Voice:
        recording.seek(0)
        self._files.write(voice, recording)
        return voice
