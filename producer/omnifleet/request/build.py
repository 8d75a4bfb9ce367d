"""Job records from the arguments of a call, checked as far as is possible without a worker."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, cast

from omnifleet_shared.errors import InvalidJob, UnknownTask
from omnifleet_shared.keys import JOB_SCHEMA_VERSION, SCHEMA_VERSION
from omnifleet_shared.schema.jobs import AudioFormat, Job, Priority, Quality, read_job
from omnifleet_shared.schema.tasks import TASK_NAMES, Namespace, Turn, task_name

from .request import MEDIA

Deadline = float | timedelta | datetime
"""Seconds from now, or a time zone aware moment."""

HistoryTurn = Turn | tuple[str, str]
"""A turn of a conversation: its role, `user` or `assistant`, and its text."""


class JobOptions(TypedDict, total=False):
    """Options of every job; None means the default."""

    priority: Priority | None
    """`interactive` (default) is taken before `batch`."""
    deadline: Deadline | None
    """When the result is of no use any more; none by default."""
    language: str | None
    """BCP 47 tag of what is said, such as `en` or `zh-yue`; not needed where it is plain from the text."""
    seed: int | None
    """0 to 2**32 - 1; drawn by default, and in the result."""
    commercial: bool | None
    """True where the result will earn money: done by models alone whose licences allow that. False by default."""
    model: str | None
    """Name of the model that does it, such as `voxcpm2`. By default the first of `OMNIFLEET_MODELS` that can do it in
    that language and for that use, those with a ready worker before the others. It is chosen once, when the job is
    sent."""
    wait: bool | None
    """False to have NoModelFor raised where no worker is ready whose model can do it; by default the job waits."""
    idempotency_key: str | None
    """Up to 200 characters that name the request. Where a job of that key waits, runs or has succeeded, its handle is
    returned, and nothing is sent. Where that job's request was another one, IdempotencyConflict is raised, naming the
    fields that differ: all count but priority and deadline, and the seed where there is one. `auto` makes the key of
    the content: task, media, the options that change the result (the seed only where there is one) and the model's
    revision; not priority, deadline and callback. A callback is made for the job's own request alone, not for those
    that join it."""
    audio_track: int | None
    """Which sound track of the files in `audio` (or in `ref` where there is no `audio`) is heard; 0 is the first. By
    default the one that the file marks as its default, else the first."""
    callback: str | None
    """Where the workers post the outcome, signed: `https://host/path` on a host that they allow. None by default."""


class UnderstandOptions(JobOptions, total=False):
    """Options of `understand`."""

    temperature: float | None
    """0 (default) to 2; 0 takes the likeliest words."""
    stream: bool | None
    """True to have the answer as it is written, by the handle's `stream`. False by default."""


class DiffusionOptions(JobOptions, total=False):
    """Options of `edit`, and of `generate`."""

    steps: int | None
    """1 to 1000 diffusion steps; 100 by default, 25 with `quality="fast"`."""
    quality: Quality | None
    """`exact` (default) takes the published model's steps; `fast` takes a quarter of them, of second order."""
    guidance: float | None
    """0 to 50; 7 by default for `generate`, 6 for `edit`; 1 switches guidance off."""
    format: AudioFormat | None
    """`wav` (default), `flac`, `mp3` or `ogg`."""
    adapter: str | None
    """What the model is to have learned besides its weights: the name of one of `Client.adapters`, or
    `NAME@sha256:HASH` for exactly that one. None by default."""
    adapter_scale: float | None
    """-4 to 4, how strongly the adapter is applied; 1 by default, as it was trained."""


class GenerateOptions(DiffusionOptions, total=False):
    """Options of `generate`."""

    stream: bool | None
    """True to have windows of long sound, and parts of long speech, as they are done, by the handle's `stream`. False
    by default."""


OF_THE_SUBMISSION = ("idempotency_key", "wait")
"""Options that are no fields of the job."""
QUESTION = ("task", "question", "text", "history")
"""Arguments of `understand` that make its question."""
OPTIONS: dict[Namespace, frozenset[str]] = {
    "understand": UnderstandOptions.__optional_keys__,
    "generate": GenerateOptions.__optional_keys__,
    "edit": DiffusionOptions.__optional_keys__,
}
"""Options by namespace."""
FIELDS: dict[Namespace, tuple[str, ...]] = {
    "understand": ("system", "max_new_tokens", "timestamps"),
    "generate": ("text", "ref_text", "seconds", "speed", "mux"),
    "edit": ("desc", "source", "target", "dry_run", "span", "text", "loudness", "channels"),
}
"""Arguments that are fields of the task as they stand."""
ARGUMENTS: dict[Namespace, frozenset[str]] = {
    "understand": OPTIONS["understand"].union(FIELDS["understand"], MEDIA["understand"], QUESTION),
    "generate": OPTIONS["generate"].union(FIELDS["generate"], MEDIA["generate"], ["task"]),
    "edit": OPTIONS["edit"].union(FIELDS["edit"], MEDIA["edit"], ["task"]),
}
"""All arguments of each call."""


def build_job(
    namespace: Namespace, task: Mapping[str, Any], options: Mapping[str, Any], job_id: str | None = None
) -> Job:
    """Build the job of one call. What is None is left to the contract's default.

    Args:
        namespace: of the call.
        task: fields of the task, its media among them.
        options: those of `OPTIONS[namespace]`.
        job_id: drawn by default.

    Raises:
        InvalidJob: a field missing or out of range, a deadline that has passed. What its model cannot do or be used for
            is for the router to find.
    """
    fields = _without_none({"job_id": job_id, **options})
    for option in OF_THE_SUBMISSION:
        fields.pop(option, None)
    if "deadline" in fields:
        fields["deadline"] = _moment(fields["deadline"])
    head = {"schema_version": JOB_SCHEMA_VERSION, "namespace": namespace}
    job = read_job(head | {"task": _without_none(task)} | fields)
    # The oldest version that has all fields, so that workers of an older release still take what they can do.
    return job.model_copy(update={"schema_version": max(job.newer_fields.values(), default=SCHEMA_VERSION)})


def check_arguments(namespace: Namespace, arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that the namespace's call does not take. Raises InvalidJob."""
    for name in arguments:
        if name not in ARGUMENTS[namespace]:
            remedy = f"{namespace} takes: {', '.join(sorted(ARGUMENTS[namespace]))}"
            raise InvalidJob(f"{namespace} takes no {str(name)[:80]}", str(name)[:80], remedy)


def task_fields(namespace: Namespace, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a call's arguments into the fields of its task that are no media. Raises InvalidJob and UnknownTask."""
    # What is False is the default of its field, which only some tasks have.
    fields = {name: value for name in FIELDS[namespace] if (value := arguments.get(name)) is not False}
    if namespace == "understand":
        question = name_and_text(arguments.get("task"), arguments.get("question"), arguments.get("text"))
        return {**fields, **question, "history": turns(arguments.get("history"))}
    task = arguments.get("task")
    if not isinstance(task, str):
        raise InvalidJob("the task is missing", "task", f"Name it: {', '.join(TASK_NAMES[namespace])}")
    span = fields.get("span")
    if isinstance(span, str):
        fields["span"] = read_span(span)
    return {**fields, "name": task_name(namespace, task)}


def read_span(text: str) -> tuple[float, float]:
    """Read a span of seconds as it is written in lists and on the command line, such as 1.5-2.75. Raises InvalidJob."""
    start, _, end = text.partition("-")
    try:
        return float(start), float(end)
    except ValueError as error:
        problem = f"{text[:80]!r} is no span"
        raise InvalidJob(problem, "span", "Give two seconds with a hyphen between them, such as 1.5-2.75") from error


def name_and_text(task: str | None, question: str | None, text: str | None) -> dict[str, str | None]:
    """Return name and text of an `understand` task: a named task if `task` is a single word, else a free question.

    Raises:
        UnknownTask: a single word that names no task.
        InvalidJob: no task and no question, or two things at once.
    """
    if question is None and not (task or "").strip():
        raise InvalidJob("nothing is asked", "task", 'Name a task such as "transcribe", or ask a question')
    if question is not None and task is not None:
        raise InvalidJob("a task and a question are two things", "question", "Give one of them; qa takes its as text")
    if task is not None and len(task.split()) == 1:
        return {"name": _named_question(task), "text": text}
    if text is not None:
        raise InvalidJob("a free question takes no text beside it", "text", "Put it into the question")
    return {"name": "question", "text": question if task is None else task}


def turns(history: Sequence[HistoryTurn] | None) -> list[Turn | dict[str, Any]] | None:
    """Return the turns of a history, for the contract to check. Raises InvalidJob where one is no turn at all."""
    return None if history is None else [_turn(turn, number) for number, turn in enumerate(history)]


def _turn(turn: object, number: int) -> Turn | dict[str, Any]:
    problem = f"{type(turn).__name__} is no turn"
    if isinstance(turn, Turn):
        return turn
    if isinstance(turn, tuple | list):
        pair = cast(Sequence[Any], turn)
        if len(pair) == 2:
            return {"role": pair[0], "text": pair[1]}
    raise InvalidJob(problem, f"history.{number}", 'Give pairs such as ("user", "What is heard?"), or Turn records')


def _named_question(word: str) -> str:
    try:
        return task_name("understand", word)
    except UnknownTask as error:
        remedy = f"{error.remedy}. A free question of a single word is asked with question="
        raise UnknownTask(error.problem, error.field, remedy) from error


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _moment(deadline: object) -> datetime:
    now = datetime.now(UTC)
    moment = deadline if isinstance(deadline, datetime) else now + _from_now(deadline)
    if moment.tzinfo is None:
        raise InvalidJob("the moment has no time zone", "deadline", "Use datetime.now(timezone.utc) + timedelta(...)")
    if moment <= now:
        raise InvalidJob("it has passed already", "deadline", "Give seconds from now, or a later moment")
    return moment


def _from_now(span: object) -> timedelta:
    if isinstance(span, timedelta):
        return span
    far = timedelta(days=3650)
    if isinstance(span, bool) or not isinstance(span, int | float) or math.isnan(span) or span > far.total_seconds():
        remedy = "Give seconds from now, a timedelta or an aware datetime"
        raise InvalidJob(f"{str(span)[:80]!r} is no deadline", "deadline", remedy)
    # Negative numbers without end would overflow; any of them has passed.
    return timedelta(seconds=max(span, 0))
