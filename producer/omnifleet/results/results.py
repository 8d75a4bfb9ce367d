"""Results as users hold them: the record of the job, and its audio at hand."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path

from omnifleet_shared.atomic_file import write_atomically
from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.schema import results as records
from omnifleet_shared.schema.adapter import UsedAdapter
from omnifleet_shared.schema.answers import Answer
from omnifleet_shared.schema.jobs import AudioFormat
from omnifleet_shared.schema.results import (
    Artifact,
    EditedSpan,
    EditPlan,
    ModelInfo,
    Timings,
    VideoArtifact,
    VideoFormat,
)
from omnifleet_shared.schema.tasks import Namespace
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord, Transcript
from omnifleet_shared.storage import Storage

from .audio_files import convert, format_of, is_video
from .stored_file import StoredFile
from .subtitles import SUBTITLE_FORMATS, write_subtitles


class Audio(StoredFile):
    """The audio that a job made. Nothing is downloaded before `read` or `save`."""

    _field = "audio"

    def __init__(self, artifact: Artifact, storage: Storage, url_lifetime: int) -> None:
        super().__init__(artifact, storage, url_lifetime)
        self._artifact = artifact

    @property
    def format(self) -> AudioFormat:
        """File format: `wav`, `flac`, `mp3` or `ogg`."""
        return self._artifact.format

    @property
    def sample_rate(self) -> int:
        """Samples a second, in hertz."""
        return self._artifact.sample_rate

    @property
    def channels(self) -> int:
        """Number of channels: 1 is mono, 2 stereo."""
        return self._artifact.channels

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the audio to a file, whole or not at all, and return its path.

        The suffix decides: that of `format` writes the bytes as they are, another of wav, flac, mp3, ogg converts, and
        none is completed with that of `format`.

        Raises:
            InvalidJob: another suffix.
            OSError: the file cannot be written.
            OmnifleetError: the errors of `read`.
        """
        target = Path(path)
        wanted = format_of(target) or self.format
        if not target.suffix:
            target = target.with_name(f"{target.name}.{self.format}")
        data = self.read()
        with write_atomically(target) as file:
            file.write(data if wanted == self.format else convert(data, wanted))
        return target


class Video(StoredFile):
    """The job's video with the sound that the job made. Nothing is downloaded before `read` or `save`."""

    _field = "video"

    def __init__(self, artifact: VideoArtifact, storage: Storage, url_lifetime: int) -> None:
        super().__init__(artifact, storage, url_lifetime)
        self._artifact = artifact

    @property
    def format(self) -> VideoFormat:
        """File format: `mp4`, `mov` or `webm`; it follows from the video that was sent."""
        return self._artifact.format

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the video to a file, whole or not at all, and return its path.

        The suffix must be that of `format`: videos are not converted. None is completed with it.

        Raises:
            InvalidJob: another suffix.
            OSError: the file cannot be written.
            OmnifleetError: the errors of `read`.
        """
        target = Path(path)
        if not target.suffix:
            target = target.with_name(f"{target.name}.{self.format}")
        if target.suffix.lower() != f".{self.format}":
            problem = f"the video is {self.format}, and is not converted to {target.suffix!r}"
            raise InvalidJob(problem, "path", f"Use .{self.format}, or no suffix")
        data = self.read()
        with write_atomically(target) as file:
            file.write(data)
        return target


class JobResult(ABC):
    """A job's result: a text or audio."""

    def __init__(self, record: records.JobResult) -> None:
        self.record = record
        """The record as the worker wrote it."""

    @property
    @abstractmethod
    def text(self) -> str | None:
        """The answer of `understand`, or what a dry run heard; None where the job made audio."""

    @property
    @abstractmethod
    def audio(self) -> Audio | None:
        """The audio of `generate` and `edit`; None where the job made text."""

    @abstractmethod
    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the audio, or the text as UTF-8, to a file and return its path. Raises as `Audio.save`."""

    @property
    def answer(self) -> Answer | None:
        """What the text says, as a record, for classify, sources, speakers, gender, sarcasm, scene and feedback."""
        return self.record.answer

    @property
    def plan(self) -> EditPlan | None:
        """What a dry run of `edit` would change, and when each word is said; None for all other jobs."""
        return self.record.plan

    @property
    def words(self) -> tuple[HeardWord, ...] | None:
        """The words of a transcript with their times, where it was asked for with `timestamps="word"`; else None."""
        return None if self.record.transcript is None else self.record.transcript.words

    @property
    def segments(self) -> tuple[HeardSegment, ...] | None:
        """What is said with its times, by sentences or pauses, where `timestamps` were asked for; else None."""
        return None if self.record.transcript is None else self.record.transcript.segments

    @property
    def video(self) -> Video | None:
        """The job's video with the new sound; None unless `generate` was called with `mux`, and where `warnings` says
        why there is none."""
        return None

    @property
    def job_id(self) -> str:
        """Id of the job that made it."""
        return self.record.job_id

    @property
    def namespace(self) -> Namespace:
        """Namespace of the job: `understand`, `generate` or `edit`."""
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
    def adapter(self) -> UsedAdapter | None:
        """The adapter that it was made with, and the licence that holds besides the model's; None where it has none."""
        return self.record.adapter

    @property
    def seed(self) -> int:
        """The seed that gives the same result again with the same request."""
        return self.record.seed

    @property
    def attempts(self) -> int:
        """How often workers started the job."""
        return self.record.attempts

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the result lacks and why, such as a film that could not be made; empty where all is as was asked."""
        return self.record.warnings

    @property
    def timings(self) -> Timings:
        """Seconds spent in each stage."""
        return self.record.timings

    def __repr__(self) -> str:
        made = repr(self.audio) if self.audio is not None else repr((self.text or "")[:60])
        return f"<{type(self).__name__} {self.namespace}.{self.task} {self.job_id} {made}>"


class TextResult(JobResult):
    """The result of `understand`, and of a dry run of `edit`, whose text is what was heard."""

    def __init__(self, record: records.JobResult, text: str) -> None:
        super().__init__(record)
        self._text = text

    @property
    def text(self) -> str:
        """The answer."""
        return self._text

    @property
    def audio(self) -> None:
        """None: the job made the other kind."""
        return None

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the text to a file, whole or not at all, and return its path.

        A transcript with times is written as subtitles where the suffix is `.srt` or `.vtt`, and as an object with
        `text`, `seconds`, `words` and `segments` where it is `.json`.

        Raises:
            InvalidJob: subtitles of a text without times.
            OSError: the file cannot be written.
        """
        target = Path(path)
        content = self._content(target.suffix.lower().removeprefix("."))
        with write_atomically(target) as file:
            file.write(content.encode())
        return target

    def _content(self, form: str) -> str:
        times = self.record.transcript
        if form in SUBTITLE_FORMATS:
            return write_subtitles(self._text, self._needed(times), form)
        if form == "json" and times is not None:
            return json.dumps({"text": self._text, **times.model_dump(mode="json")}, ensure_ascii=False) + "\n"
        return self._text

    @staticmethod
    def _needed(times: Transcript | None) -> Transcript:
        if times is None:
            remedy = 'Transcribe with timestamps="word" or "segment", or save the text as .txt'
            raise InvalidJob("subtitles need times, and none were asked for", "path", remedy)
        return times


class AudioResult(JobResult):
    """The result of `generate` and `edit`."""

    def __init__(self, record: records.JobResult, audio: Audio, video: Video | None = None) -> None:
        super().__init__(record)
        self._audio = audio
        self._video = video

    @property
    def text(self) -> None:
        """None: the job made the other kind."""
        return None

    @property
    def audio(self) -> Audio:
        """The audio."""
        return self._audio

    @property
    def video(self) -> Video | None:
        """See `JobResult`."""
        return self._video

    @property
    def edits(self) -> tuple[EditedSpan, ...] | None:
        """What is new in the audio, in order, where words were edited (`speech`); None for other tasks."""
        return self.record.edits

    def save(self, path: str | os.PathLike[str]) -> Path:
        """See `JobResult`; a video's suffix writes the video, where there is one."""
        media = self._video if self._video is not None and is_video(Path(path)) else self._audio
        return media.save(path)


def open_result(record: records.JobResult, storage: Storage, url_lifetime: int) -> TextResult | AudioResult:
    """Make the result of a record. Links are signed with `storage` for `url_lifetime` seconds."""
    if record.artifact is not None:
        video = None if record.video is None else Video(record.video, storage, url_lifetime)
        return AudioResult(record, Audio(record.artifact, storage, url_lifetime), video)
    return TextResult(record, record.text or "")
