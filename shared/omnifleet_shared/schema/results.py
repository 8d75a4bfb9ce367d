"""The records that come back: results, progress and statuses."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from ..errors import InvalidMessage
from ..keys import SCHEMA_VERSION
from .adapter import UsedAdapter
from .answers import Answer
from .base import JobId, ModelName, Record, Sha256
from .jobs import AudioFormat, check_record, payload_sample
from .tasks import Namespace
from .transcript import HeardWord, Seconds, Transcript, place_texts

VideoFormat = Literal["mp4", "mov", "webm"]


class _StoredFile(Record):
    uri: str
    """Its URI in storage, for whoever has access to that."""
    url: str
    """A link that works without credentials until it expires (`file://` for folder storage)."""
    sha256: Sha256
    bytes: Annotated[int, Field(ge=1)]
    seconds: Seconds


class Artifact(_StoredFile):
    """An audio file that a job made."""

    format: AudioFormat
    sample_rate: Annotated[int, Field(ge=1)]
    channels: Annotated[int, Field(ge=1)]


class VideoArtifact(_StoredFile):
    """A video file: the pictures of a job's video with the sound that was made, as long as the longer of the two."""

    format: VideoFormat


class EditedSpan(Record):
    """An interval of an edited recording that is new, crossfades included; all samples outside are the source's own."""

    start: Seconds
    """Its start in the result."""
    end: Seconds
    """Its end in the result; where words were deleted, only the crossfade lies between start and end."""
    source_start: Seconds
    """The start of what it replaced in the source."""
    source_end: Seconds
    old: str
    """The words that were spoken there; empty for an insertion."""
    new: str
    """The words that are spoken there now; empty for a deletion."""


class PlannedEdit(Record):
    """A change of words that was not made."""

    first: Annotated[int, Field(ge=0)]
    """Number of the first word that would go, from 0; of the word before which something would be inserted."""
    last: Annotated[int, Field(ge=0)]
    """One more than the number of the last word that would go; as `first` for an insertion."""
    start: Seconds
    """The time in the recording at which those words begin; for an insertion, where it would be."""
    end: Seconds
    old: str
    """Those words; empty for an insertion."""
    new: str
    """The words that would be said there; empty for a deletion."""


class EditPlan(Record):
    """What an edit of words would change."""

    words: tuple[HeardWord, ...]
    """All words that were heard."""
    edits: tuple[PlannedEdit, ...]
    """The changes, in the recording's order."""


class ModelInfo(Record):
    """The model that made the result, and the licence under which it may be used."""

    name: str
    revision: str
    licence: str


class Route(Record):
    """The model that was chosen for a job when it was sent, and why."""

    model_config = ConfigDict(extra="ignore")

    model: ModelName
    queue: str
    """Queue of its workers."""
    reason: str
    revision: str | None = None
    """Revision of the checkpoint that its workers reported; None where none did."""
    licence: str | None = None
    """Licence of the model; None where nobody knows it."""
    live: bool
    """Whether a worker of it was ready."""


class Timings(Record):
    """Seconds of each stage of the attempt that succeeded; 0 for a stage that the task does not have."""

    queued: Seconds = 0.0
    """From submission to the start of this attempt, earlier attempts included."""
    fetched: Seconds = 0.0
    decoded: Seconds = 0.0
    conditioned: Seconds = 0.0
    """From entering the engine to the first step: waiting for a slot, prefill, prompts, voice."""
    sampled: Seconds = 0.0
    """Diffusion steps and VAE, or decoding the tokens of an answer."""
    encoded: Seconds = 0.0
    stored: Seconds = 0.0


class JobResult(Record):
    """The result of a job: an artifact or a text."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    job_id: JobId
    namespace: Namespace
    task: str
    artifact: Artifact | None = None
    video: VideoArtifact | None = None
    """The muxed video, where the job asked for `mux`."""
    edits: tuple[EditedSpan, ...] | None = None
    """The new intervals of the artifact, in order, where words of a recording were edited (`speech`)."""
    text: str | None = None
    answer: Answer | None = None
    """The text as a record; only for the tasks in `answers.ANSWERS`."""
    # Left out where there is none: clients of the first release refuse the field.
    plan: Annotated[EditPlan | None, Field(exclude_if=lambda plan: plan is None)] = None
    """What a dry run would change, beside the words that were heard as `text`."""
    # Left out likewise.
    transcript: Annotated[Transcript | None, Field(exclude_if=lambda transcript: transcript is None)] = None
    """When the words or segments of `text` are said, where the job asked for `timestamps`."""
    # Left out where there are none: clients of the first release refuse the field.
    warnings: Annotated[tuple[str, ...], Field(exclude_if=lambda warnings: not warnings)] = ()
    """What the result lacks and why, each as `field: problem. Remedy.`, such as a film that could not be made."""
    model: ModelInfo
    # Left out likewise.
    route: Annotated[Route | None, Field(exclude_if=lambda route: route is None)] = None
    """Which model was chosen and why, where there was a choice."""
    # Left out likewise.
    adapter: Annotated[UsedAdapter | None, Field(exclude_if=lambda adapter: adapter is None)] = None
    """What the model had learned besides its weights, where the job named an adapter."""
    seed: int
    attempts: Annotated[int, Field(ge=1)]
    """Times that workers started the job, this attempt included."""
    timings: Timings

    @model_validator(mode="after")
    def _artifact_or_text(self) -> Self:
        if (self.artifact is None) == (self.text is None):
            raise ValueError("a result is either an artifact or a text")
        if self.video is not None and self.artifact is None:
            raise ValueError("a video comes beside an artifact")
        if self.edits is not None and self.artifact is None:
            raise ValueError("edited spans come beside an artifact")
        if self.plan is not None and self.text is None:
            raise ValueError("a plan comes beside the text that was heard")
        if self.transcript is not None:
            _check_transcript(self.transcript, self.text)
        if self.answer is not None and (self.text is None or self.answer.kind != self.task):
            raise ValueError("an answer comes beside the text of its own task")
        return self


def _check_transcript(transcript: Transcript, text: str | None) -> None:
    if text is None:
        raise ValueError("times of words come beside their text")
    for parts in (transcript.words or (), transcript.segments):
        place_texts(text, parts)


class Progress(Record):
    """The progress of a running job."""

    step: Annotated[int, Field(ge=0)] = 0
    """Diffusion steps done, or tokens decoded."""
    steps: Annotated[int, Field(ge=0)] = 0
    """Steps in all, or the most tokens that will be decoded; 0 while not yet known."""
    eta: Seconds | None = None
    """Estimated seconds to the last step, once there are steps to estimate from."""


class JobStatus(StrEnum):
    """The status of a job."""

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
    """Parse the result in a decoded JSON record.

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
