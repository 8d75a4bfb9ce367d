"""Named voices in the storage: a record under each name, and its recording, with what is made of that, beside it.

A recording belongs to its name alone, also where another name has the same bytes: two consents are two voices, and each
is removed with all that is its own.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import BinaryIO

from pydantic import ValidationError

from ..errors import ForeignURI, InvalidJob, InvalidMessage, MediaNotFound, VoiceNotFound
from ..keys import VOICE_FILE_KEY, VOICE_KEY
from ..schema.base import Media
from ..schema.voice import VOICE_NAME, Voice
from .base import Storage

MAX_RECORD_BYTES = 2**20


class VoiceFiles:
    """Reads and writes the voices of one storage, whose errors every method may raise. Thread-safe.

    Args:
        storage: where they are.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self, name: str) -> Voice:
        """Read the record of a voice.

        Raises:
            VoiceNotFound: no voice of that name.
            InvalidJob: no name.
            InvalidMessage: what is stored there is no record.
        """
        uri = self._storage.uri(VOICE_KEY.format(name=check_name(name)))
        try:
            data = self._storage.get(uri, max_bytes=MAX_RECORD_BYTES)
        except MediaNotFound as error:
            remedy = "Add it with voices.add; voices.list has all that there are"
            raise VoiceNotFound(f"there is no voice {name!r}", "ref", remedy) from error
        try:
            return Voice.model_validate_json(data)
        except ValidationError as error:
            raise InvalidMessage(f"the record of the voice {name!r} cannot be read", "voice", "Add it again") from error

    def names(self) -> Iterator[str]:
        """Iterate over the names of all voices, in no order."""
        prefix, suffix = VOICE_KEY.split("{name}")
        for found in self._storage.list(prefix):
            name = self._storage.key(found.uri).removeprefix(prefix).removesuffix(suffix)
            if re.fullmatch(VOICE_NAME, name):
                yield name

    def media(self, voice: Voice) -> Media:
        """Describe the recording of a voice, as a job names it."""
        key = VOICE_FILE_KEY.format(name=voice.name, sha256=voice.sha256)
        return Media(uri=self._storage.uri(key), sha256=voice.sha256, bytes=voice.bytes)

    def write(self, voice: Voice, recording: BinaryIO) -> None:
        """Store a voice: its recording first, so that there is no record without one."""
        key = self._storage.key(self.media(voice).uri)
        self._storage.put(key, recording, content_type="application/octet-stream")
        record = io.BytesIO(voice.model_dump_json().encode())
        self._storage.put(VOICE_KEY.format(name=voice.name), record, content_type="application/json")

    def remove(self, name: str) -> None:
        """Delete a voice, its recording and all that was made of it, and what an interrupted removal left behind.

        Raises:
            VoiceNotFound: nothing of that name was there.
            InvalidJob: no name.
        """
        uri = self._storage.uri(VOICE_KEY.format(name=check_name(name)))
        record = self._storage.stat(uri)
        # The record first, so that no new job names it. Then the recording, and only then is looked for what was made
        # of it: a worker that stores such a thing looks afterwards whether the recording is still there.
        self._storage.delete(uri)
        recordings = [found for found in self._files(name) if "." not in found.rpartition("/")[2]]
        self._storage.delete_many(recordings)
        made = list(self._files(name))
        self._storage.delete_many(made)
        if record is None and not recordings and not made:
            raise VoiceNotFound(f"there is no voice {name!r}", "name", "voices.list has all that there are")

    def name_of(self, uri: str) -> str | None:
        """Return the name of the voice that a recording belongs to; None where it is no voice's."""
        try:
            key = self._storage.key(uri)
        except ForeignURI:
            return None
        found = re.fullmatch(VOICE_FILE_KEY.format(name=f"({VOICE_NAME})", sha256="[0-9a-f]{64}"), key)
        return found[1] if found else None

    def _files(self, name: str) -> Iterator[str]:
        prefix = VOICE_FILE_KEY.format(name=name, sha256="")
        return (found.uri for found in self._storage.list(prefix))


def check_name(name: str) -> str:
    """Return the name of a voice. Raises InvalidJob where it is none, which alone keeps it in its folder."""
    if re.fullmatch(VOICE_NAME, name) is None:
        remedy = "Use up to 64 of a-z, 0-9, - and _, a letter or digit first"
        raise InvalidJob(f"{name[:80]!r} is no name of a voice", "name", remedy)
    return name
