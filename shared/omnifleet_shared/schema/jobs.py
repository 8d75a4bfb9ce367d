"""The job records, one for each namespace, and their parsing from the wire."""

from __future__ import annotations

import json
import reprlib
import secrets
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from ..errors import InvalidJob, InvalidMessage, SchemaTooNew
from ..keys import JOB_SCHEMA_VERSION, MODEL, SCHEMA_VERSION
from .adapter import JobAdapter
from .base import JobId, ModelName, Record
from .tasks import (
    TASK_NAMES,
    Edit,
    Generation,
    NamedUnderstanding,
    Namespace,
    Speech,
    SpeechEdit,
    Understanding,
    task_name,
)

AudioFormat = Literal["wav", "flac", "mp3", "ogg"]
Priority = Literal["interactive", "batch"]
Quality = Literal["exact", "fast"]
FAST_STEPS = 25
"""Default of `steps` where `quality` is `fast`."""
MAX_SEED = 2**32 - 1
EXTENDED = 3
"""Letters of a language that follows its macrolanguage in a tag; scripts have four, regions two letters or digits."""
# Left out where it is not wanted: workers of schema version 5 refuse the field.
Streamed = Annotated[bool, Field(exclude_if=lambda wanted: not wanted)]


def language_of(tag: str) -> str:
    """Shorten a BCP 47 tag to its language: `en-US` to `en`; `zh-yue` is `yue`, for Cantonese is not Mandarin."""
    language, *subtags = (part.strip() for part in tag.lower().replace("_", "-").split("-"))
    if subtags and len(subtags[0]) == EXTENDED and subtags[0].isalpha():
        language = subtags[0]
    return "zh" if language == "cmn" else language


Language = Annotated[str, AfterValidator(language_of)]
"""BCP 47 tag, shortened to its language."""


CallbackUrl = Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[!-~]+$")]
"""`https://host/path`, or `http://` where the workers allow it."""
AudioTrack = Annotated[int, Field(ge=0, le=31)]
"""Number of a sound track among those of its file, from 0."""


class _Job(Record):
    schema_version: Annotated[int, Field(ge=1, le=JOB_SCHEMA_VERSION)] = SCHEMA_VERSION
    job_id: JobId = Field(default_factory=lambda: uuid.uuid4().hex)
    model: ModelName = MODEL
    """Name of the model that does it. One other than `audio-omni` since schema version 8."""
    submitted_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    priority: Priority = "interactive"
    """Workers take interactive jobs first."""
    deadline: AwareDatetime | None = None
    """Time after which the job fails with DeadlineExceeded. No deadline by default."""
    language: Language | None = None
    """Language of the speech, where the task makes or hears speech; not needed where the text makes it plain."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = Field(default_factory=lambda: secrets.randbelow(MAX_SEED + 1))
    """Seed of all random numbers: the same request with the same seed gives the same result. Drawn when absent."""
    commercial: bool = False
    """Whether the result is for commercial use: a model whose licence does not allow that refuses the job."""
    # Left out where there is none: workers of schema version 1 refuse the field.
    callback: Annotated[CallbackUrl | None, Field(exclude_if=lambda url: url is None)] = None
    """URL that the signed outcome is posted to, on a host that the workers allow. Since schema version 2."""
    # Left out likewise: workers of schema version 2 refuse it.
    audio_track: Annotated[AudioTrack | None, Field(exclude_if=lambda track: track is None)] = None
    """Which sound track is heard of the files in `audio`, or in `ref` where there is no `audio`; 0 is the first. By
    default the one that the file marks as such, else the first. Since schema version 3."""

    @model_validator(mode="after")
    def _newer_fields_have_their_version(self) -> Self:
        for field, version in self.newer_fields.items():
            if self.schema_version < version:
                problem = f"schema version {self.schema_version} has none"
                raise ValueError(f"{field}: {problem}. Set schema_version to {version}")
        return self

    @property
    def newer_fields(self) -> dict[str, int]:
        """Fields that this job has and that older workers refuse, with the schema version that brought them."""
        callback = {"callback": 2} if self.callback is not None else {}
        model = {"model": 8} if self.model != MODEL else {}
        return callback | model | ({"audio_track": 3} if self.audio_track is not None else {})

    @model_validator(mode="after")
    def _track_has_its_audio(self) -> Self:
        task: Any = getattr(self, "task", None)
        if self.audio_track is not None and not any(getattr(task, name, None) for name in ("audio", "ref")):
            raise ValueError("audio_track: the job has no audio. Leave it out")
        return self


class UnderstandJob(_Job):
    """A job that answers with text about text, audio and video."""

    namespace: Literal["understand"] = "understand"
    task: Understanding
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature: 0 takes the likeliest token; above 0, tokens are drawn with the job's seed."""
    stream: Streamed = False
    """Whether the answer is given out as it is written. Since schema version 6."""

    @property
    def newer_fields(self) -> dict[str, int]:
        """See `_Job`."""
        timed = isinstance(self.task, NamedUnderstanding) and self.task.timestamps is not None
        newer = ({"timestamps": 5} if timed else {}) | ({"stream": 6} if self.stream else {})
        return super().newer_fields | newer


class _DiffusionJob(_Job):
    steps: Annotated[int, Field(ge=1, le=1000)] = 100
    """Diffusion steps; by default 100, as the published model makes, or 25 where `quality` is `fast`."""
    # Left out where it is exact: workers of schema version 1 refuse the field.
    quality: Annotated[Quality, Field(exclude_if=lambda quality: quality == "exact")] = "exact"
    """`exact` uses Euler steps, as the published model does; `fast` uses second-order ones, a quarter of which come as
    near to the exact solution. Since schema version 2."""
    format: AudioFormat = "wav"
    # Left out where there is none: workers of schema version 8 refuse the field.
    adapter: Annotated[JobAdapter | None, Field(exclude_if=lambda adapter: adapter is None)] = None
    """What the model is to have learned besides its weights. Since schema version 9."""

    @model_validator(mode="before")
    @classmethod
    def _fast_takes_fewer_steps(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping) and "steps" not in fields:
            values = cast(Mapping[str, Any], fields)
            return {**values, "steps": FAST_STEPS} if values.get("quality") == "fast" else values
        return cast(Any, fields)

    @property
    def newer_fields(self) -> dict[str, int]:
        """Fields that this job has and that older workers refuse, with the schema version that brought them."""
        newer = ({"quality": 2} if self.quality != "exact" else {}) | ({"adapter": 9} if self.adapter else {})
        return super().newer_fields | newer


class GenerateJob(_DiffusionJob):
    """A job that generates audio from text, video or a voice."""

    namespace: Literal["generate"] = "generate"
    task: Generation
    guidance: Annotated[float, Field(ge=0, le=50)] = 7.0
    """Classifier-free guidance scale; 1 switches it off."""
    stream: Streamed = False
    """Whether windows of long sound, and parts of long speech, are given out as they are done. The parts of streamed
    speech are kept below full scale one by one, and not all by the loudest of them. Since schema version 6."""

    @property
    def newer_fields(self) -> dict[str, int]:
        """See `_Job`."""
        newer = super().newer_fields | ({"stream": 6} if self.stream else {})
        if isinstance(self.task, Speech):
            newer |= {"speed": 9} if self.task.speed != 1 else {}
            newer |= {"seconds": 9} if self.task.seconds is not None else {}
        return newer


class EditJob(_DiffusionJob):
    """A job that edits audio by an instruction."""

    namespace: Literal["edit"] = "edit"
    task: Edit
    guidance: Annotated[float, Field(ge=0, le=50)] = 6.0
    """Classifier-free guidance scale; 1 switches it off."""

    @property
    def newer_fields(self) -> dict[str, int]:
        """See `_Job`."""
        task = self.task
        if isinstance(task, SpeechEdit):
            dry_run = {"dry_run": 4} if task.dry_run else {}
            return super().newer_fields | dry_run | ({"span": 5} if task.span is not None else {})
        loudness = {"loudness": 7} if task.loudness != "source" else {}
        return super().newer_fields | loudness | ({"channels": 7} if task.channels != 2 else {})


Job = UnderstandJob | GenerateJob | EditJob
_JOB: TypeAdapter[Job] = TypeAdapter(Annotated[Job, Field(discriminator="namespace")])


def read_job(payload: object) -> Job:
    """Parse the job in a decoded JSON message.

    Raises:
        InvalidMessage: not a job record at all.
        SchemaTooNew: written by a newer release.
        UnknownTask: the namespace has no such task.
        InvalidJob: a field is missing, superfluous or out of its range.
    """
    record = check_record(payload, "job", newest=JOB_SCHEMA_VERSION)
    namespace = record.get("namespace")
    if not isinstance(namespace, str) or namespace not in TASK_NAMES:
        problem, remedy = f"{_short(namespace)} is not a namespace", f"Use one of {', '.join(TASK_NAMES)}"
        raise InvalidMessage(problem, "namespace", remedy, payload_sample(payload))
    try:
        return _JOB.validate_python(_with_task_name(namespace, record))
    except ValidationError as error:
        raise invalid_job(error) from error


def check_record(payload: object, what: str, newest: int = SCHEMA_VERSION) -> dict[str, Any]:
    """Give the payload as a dict, of a schema version that this release reads, `newest` at most.

    Raises:
        InvalidMessage: not an object, or without a version.
        SchemaTooNew: of a newer version.
    """
    if not isinstance(payload, Mapping):
        problem = f"the message holds no {what} record but {type(payload).__name__}"
        raise InvalidMessage(problem, what, f"Send the {what} as a JSON object", payload_sample(payload))
    record = {str(key): value for key, value in cast(Mapping[object, Any], payload).items()}
    version = record.get("schema_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        problem, remedy = f"{_short(version)} is not a schema version", f"Set it to {SCHEMA_VERSION}"
        raise InvalidMessage(problem, "schema_version", remedy, payload_sample(payload))
    if version > newest:
        problem = f"the {what} is of schema version {version}, this release reads up to {newest}"
        remedy = "Upgrade the workers before the producers"
        raise SchemaTooNew(problem, "schema_version", remedy, payload_sample(payload))
    return record


def _with_task_name(namespace: Namespace, record: dict[str, Any]) -> dict[str, Any]:
    task = record.get("task")
    fields: Mapping[str, Any] = cast(Mapping[str, Any], task) if isinstance(task, Mapping) else {}
    name = fields.get("name")
    if not isinstance(name, str):
        raise InvalidJob("its name is missing", "task", f"{namespace} knows: {', '.join(TASK_NAMES[namespace])}")
    return record | {"task": {**fields, "name": task_name(namespace, name)}}


def invalid_job(error: ValidationError) -> InvalidJob:
    """Make the error for pydantic's first complaint, in the terms of the API."""
    first = error.errors(include_url=False, include_context=False)[0]
    path = [str(part) for part in first["loc"]]
    if len(path) > 1 and path[0] in TASK_NAMES:
        path = path[1:]
    owner = "the job"
    if path and path[0] == "task":
        owner, path = (path[1] if len(path) > 1 else "task"), path[2:]
    field = ".".join(path)
    if first["type"] == "missing":
        return InvalidJob(f"{owner} needs it", field, f"Give {field}")
    if first["type"] == "extra_forbidden":
        return InvalidJob(f"{owner} takes no {field}", field, "Leave it out")
    if first["type"] == "value_error":
        named, _, text = first["msg"].removeprefix("Value error, ").partition(": ")
        problem, _, remedy = text.partition(". ")
        return InvalidJob(problem, named, remedy)
    return InvalidJob(f"{_short(first.get('input'))} will not do", field or owner, first["msg"])


def payload_sample(payload: object) -> dict[str, str]:
    """Cut a payload to its first 500 characters, as the details of the error that refuses it."""
    try:
        return {"payload": json.dumps(payload, default=repr)[:500]}
    except (RecursionError, TypeError, ValueError):  # nested too deeply, or not from JSON at all
        return {"payload": _short(payload)}


def _short(value: object) -> str:
    """Shorten a value for a message: it may be long, and nested more deeply than `repr` can follow."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 80, 80
    return short.repr(value)[:200]
