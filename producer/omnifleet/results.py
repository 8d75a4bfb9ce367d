"""Results as users hold them: the record of the job, and its audio at hand."""

from __future__ import annotations

import builtins
import hashlib
import os
from abc import ABC, abstractmethod
from pathlib import Path

from omnifleet_shared import results as records
from omnifleet_shared.errors import ForeignURI, MediaError, StorageRefused
from omnifleet_shared.jobs import AudioFormat
from omnifleet_shared.results import Artifact, ModelInfo, Timings
from omnifleet_shared.storage import Storage
from omnifleet_shared.tasks import Namespace

from .audio_files import convert, format_of, write_whole
from .links import download


class Audio:
    """The audio that a job made. Nothing is downloaded before `read` or `save`."""

    def __init__(self, artifact: Artifact, storage: Storage, url_lifetime: int) -> None:
        self._artifact = artifact
        self._storage = storage
        self._url_lifetime = url_lifetime

    @property
    def uri(self) -> str:
        """Where it lies in the storage."""
        return self._artifact.uri

    @property
    def url(self) -> str:
        """A link that works without credentials.

        Signed anew, for `FleetSettings.url_lifetime` seconds, where this process has access to the storage; else the
        one that the worker signed when the job was done.
        """
        try:
            return self._storage.url(self.uri, self._url_lifetime)
        except (ForeignURI, StorageRefused):
            return self._artifact.url

    @property
    def sha256(self) -> str:
        """Hash of the file, in hexadecimal digits."""
        return self._artifact.sha256

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._artifact.bytes

    @property
    def format(self) -> AudioFormat:
        """`wav`, `flac`, `mp3` or `ogg`."""
        return self._artifact.format

    @property
    def sample_rate(self) -> int:
        """Hertz."""
        return self._artifact.sample_rate

    @property
    def channels(self) -> int:
        """1 is mono, 2 stereo."""
        return self._artifact.channels

    @property
    def seconds(self) -> float:
        """Length."""
        return self._artifact.seconds

    def read(self) -> builtins.bytes:
        """The file's bytes, from the storage, or by the worker's link where this process has no access to it.

        Raises:
            StorageUnavailable: the storage does not answer.
            StorageRefused: no access, and the link has expired.
            MediaNotFound: it was deleted since.
            MediaError: other bytes than the job made.
        """
        data = self._download()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise MediaError("what was downloaded is not what the job made", "audio", "Download it again")
        return data

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the audio to a file, whole or not at all, and return its path.

        The suffix decides: that of `format` writes the bytes as they are, another of wav, flac, mp3, ogg converts, and
        none is completed with that of `format`.

        Raises:
            InvalidJob: another suffix.
            OSError: the file cannot be written.
            Everything that `read` raises.
        """
        target = Path(path)
        wanted = format_of(target) or self.format
        if not target.suffix:
            target = target.with_name(f"{target.name}.{self.format}")
        data = self.read()
        write_whole(target, data if wanted == self.format else convert(data, wanted))
        return target

    def __repr__(self) -> str:
        return f"<Audio {self.format} {self.seconds:g} s {self.uri}>"

    def _download(self) -> builtins.bytes:
        try:
            return self._storage.get(self.uri, max_bytes=self.bytes)
        except (ForeignURI, StorageRefused):
            return download(self._artifact.url, self.bytes)


class JobResult(ABC):
    """What a job made: a text or audio."""

    def __init__(self, record: records.JobResult) -> None:
        self.record = record
        """The record as the worker wrote it."""

    @property
    @abstractmethod
    def text(self) -> str | None:
        """The answer of `understand`; None where the job made audio."""

    @property
    @abstractmethod
    def audio(self) -> Audio | None:
        """The audio of `generate` and `edit`; None where the job made text."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the audio, or the text as UTF-8, to a file and return its path. Raises as `Audio.save`."""

    @property
    def job_id(self) -> str:
        """The job that made it."""
        return self.record.job_id

    @property
    def namespace(self) -> Namespace:
        """`understand`, `generate` or `edit`."""
        return self.record.namespace

    @property
    def task(self) -> str:
        """The task's name in the contract."""
        return self.record.task

    @property
    def model(self) -> ModelInfo:
        """Which model made it, and the licence that the result comes under."""
        return self.record.model

    @property
    def seed(self) -> int:
        """Gives the same result again with the same request."""
        return self.record.seed

    @property
    def attempts(self) -> int:
        """Times that a worker started the job."""
        return self.record.attempts

    @property
    def timings(self) -> Timings:
        """Seconds spent in each stage."""
        return self.record.timings

    def __repr__(self) -> str:
        made = repr(self.audio) if self.audio is not None else repr((self.text or "")[:60])
        return f"<{type(self).__name__} {self.namespace}.{self.task} {self.job_id} {made}>"


class TextResult(JobResult):
    """What `understand` answers."""

    def __init__(self, record: records.JobResult, text: str) -> None:
        super().__init__(record)
        self._text = text

    @property
    def text(self) -> str:
        """The answer."""
        return self._text

    @property
    def audio(self) -> None:
        """None."""
        return None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """See `JobResult`."""
        write_whole(Path(path), self._text.encode())
        return Path(path)


class AudioResult(JobResult):
    """What `generate` and `edit` make."""

    def __init__(self, record: records.JobResult, audio: Audio) -> None:
        super().__init__(record)
        self._audio = audio

    @property
    def text(self) -> None:
        """None."""
        return None

    @property
    def audio(self) -> Audio:
        """The audio."""
        return self._audio

    def save(self, path: str | os.PathLike[str]) -> Path:
        """See `JobResult`."""
        return self._audio.save(path)


def open_result(record: records.JobResult, storage: Storage, url_lifetime: int) -> TextResult | AudioResult:
    """The result of a record. Links are signed with `storage` for `url_lifetime` seconds."""
    if record.artifact is not None:
        return AudioResult(record, Audio(record.artifact, storage, url_lifetime))
    return TextResult(record, record.text or "")
