"""What comes back: result, progress and status records."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ..errors import InvalidMessage
from ..keys import SCHEMA_VERSION
from .answers import Answer
from .base import JobId, Record, Sha256
from .jobs import AudioFormat, check_record, payload_sample
from .tasks import Namespace

Seconds = Annotated[float, Field(ge=0)]


VideoFormat = Literal["mp4", "mov", "webm"]


class _StoredFile(Record):
    uri: str
    """Where it lies, for whoever has access to the storage."""
    url: str
    """A link that works without credentials until it expires (`file://` for folder storage)."""
    sha256: Sha256
    bytes: Annotated[int, Field(ge=1)]
    seconds: Seconds


class Artifact(_StoredFile):
    """The audio that a job made."""

    format: AudioFormat
    sample_rate: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1)]


class VideoArtifact(_StoredFile):
    """The pictures of a job's video with the sound that the job made; as long as the longer of the two."""

    format: VideoFormat


class EditedSpan(Record):
    """A stretch of an edited recording that is new, crossfades included; all samples outside are the source's own."""

    start: Seconds
    """Where it begins in the result."""
    end: Seconds
    """Where it ends in the result; its crossfade alone lies there where words were deleted."""
    source_start: Seconds
    """Where what it took the place of begins in the source."""
    source_end: Seconds
    old: str
    """The words that were said there; empty for an insertion."""
    new: str
    """The words that are said there now; empty for a deletion."""


class ModelInfo(Record):
    """Which model made the result, and under which licence it may be used."""

    name: str
    revision: str
    licence: str


class Timings(Record):
    """Seconds spent in each stage of the attempt that succeeded; a stage that the task does not have is 0."""

    queued: Seconds = 0.0
    """From submission to a worker's first look, earlier attempts included."""
    fetched: Seconds = 0.0
    decoded: Seconds = 0.0
    conditioned: Seconds = 0.0
    """From entering the engine to the first step: waiting for a place, prefill, prompts, voice."""
    sampled: Seconds = 0.0
    """Diffusion steps and VAE, or the tokens of an answer."""
    encoded: Seconds = 0.0
    stored: Seconds = 0.0


class JobResult(Record):
    """What a job made: an artifact or a text."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    job_id: JobId
    namespace: Namespace
    task: str
    artifact: Artifact | None = None
    video: VideoArtifact | None = None
    """Beside the artifact, where the job asked for `mux`."""
    edits: tuple[EditedSpan, ...] | None = None
    """What is new in the artifact, in order, where words of a recording were edited (`speech`)."""
    text: str | None = None
    answer: Answer | None = None
    """What the text says, as a record; of the tasks in `answers.ANSWERS` alone."""
    model: ModelInfo
    seed: int
    attempts: Annotated[int, Field(ge=1)]
    """Times that a worker started the job, this one included."""
    timings: Timings

    @model_validator(mode="after")
    def _artifact_or_text(self) -> Self:
        if (self.artifact is None) == (self.text is None):
            raise ValueError("a result is either an artifact or a text")
        if self.video is not None and self.artifact is None:
            raise ValueError("a video comes beside an artifact")
        if self.edits is not None and self.artifact is None:
            raise ValueError("edited spans come beside an artifact")
        if self.answer is not None and (self.text is None or self.answer.kind != self.task):
            raise ValueError("an answer comes beside the text of its own task")
        return self


class Progress(Record):
    """How far a running job is."""

    step: Annotated[int, Field(ge=0)] = 0
    """Diffusion steps done, or tokens written."""
    steps: Annotated[int, Field(ge=0)] = 0
    """Steps in all, or the most tokens that will be written; 0 while not yet known."""
    eta: Seconds | None = None
    """Seconds to the last step, once there is a pace to tell from."""


class JobStatus(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


def read_result(payload: object) -> JobResult:
    """The result in a decoded JSON record.

    Raises:
        InvalidMessage: not a result record.
        SchemaTooNew: written by a newer release.
    """
    record = check_record(payload, "result")
    try:
        return JobResult.model_validate(record)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        problem = f"not a result record: {where or 'result'}: {first['msg']}"
        raise InvalidMessage(problem, "result", "Upgrade whichever side is older", payload_sample(payload)) from error
