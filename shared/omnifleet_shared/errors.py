"""Every error that omnifleet raises. One tree; the two branches say whether trying again can help.

OmnifleetError
├── PermanentError                  the same job fails again: never retried
│   ├── InvalidSetting              the environment
│   ├── InvalidJob                  the request itself
│   │   ├── UnknownTask
│   │   ├── TaskNotSupported
│   │   ├── LanguageNotSupported
│   │   ├── LicenceRefused
│   │   ├── CallbackRefused
│   │   └── InvalidJobList          lines of a batch that are no jobs
│   ├── BatchRunning                another process works on the batch
│   ├── JournalMismatch             a batch's journal and what it is to go on with
│   ├── InvalidMessage              what came over the wire
│   │   ├── SchemaTooNew
│   │   └── SignatureInvalid
│   ├── MediaError                  what was sent as audio or video
│   │   ├── MediaNotFound
│   │   ├── MediaUnreadable
│   │   ├── MediaEmpty
│   │   ├── MediaTooLarge
│   │   └── MediaTooLong
│   ├── ForeignURI                  outside the configured storage
│   ├── StorageRefused              wrong credentials, no such bucket
│   ├── CheckpointInvalid           the model's own files
│   ├── AnswerUnreadable            what the model said is not the record that the task promises
│   ├── JobFailed                   an unforeseen fault in a worker
│   ├── JobQuarantined              it ended several workers, and was put aside
│   ├── JobCancelled
│   ├── DeadlineExceeded
│   └── UnknownJob                  no such job id, or forgotten since
└── TransientError                  the same job may well succeed: retried with backoff, up to a limit
    ├── StorageUnavailable
    ├── BrokerUnavailable
    ├── QueueFull                   more waits than the fleet takes on
    ├── OutOfMemory
    ├── EngineStopped
    └── ResultTimeout               the caller stopped waiting; the job goes on

Errors cross the wire by class name with their four arguments and come back as the same class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast


class OmnifleetError(Exception):
    """Root of the tree.

    Args:
        problem: what was wrong, in one sentence without its full stop.
        field: the field of the request that is at fault, where there is one.
        remedy: what to do about it, in one sentence without its full stop.
        details: facts for programs (JSON values only), such as a limit or the text that could not be read.
    """

    def __init__(
        self,
        problem: str,
        field: str | None = None,
        remedy: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.problem = problem
        self.field = field
        self.remedy = remedy
        self.details = dict(details or {})
        super().__init__(problem)
        # Celery stores `args` as the error's JSON and pickle rebuilds from it: all four, in order. Set afterwards, as
        # the OSError in ResultTimeout's bases would take them for errno, strerror and filename, and drop the rest.
        self.args = (problem, field, remedy, self.details)

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        what_to_do = f" {self.remedy.rstrip('.')}." if self.remedy else ""
        return f"{where}{self.problem.rstrip('.')}.{what_to_do}"


class PermanentError(OmnifleetError):
    """The same job would fail again; it is not retried."""


class TransientError(OmnifleetError):
    """The same job may succeed later; it is retried with backoff, up to a limit."""


class InvalidSetting(PermanentError):
    """A setting that does not parse; `field` is its variable in the environment."""


class InvalidJob(PermanentError):
    """The request cannot be carried out as it stands."""


class UnknownTask(InvalidJob):
    """No task of that name in that namespace."""


class TaskNotSupported(InvalidJob):
    """The contract knows the task, this model or this release cannot do it yet."""


class LanguageNotSupported(InvalidJob):
    """The model was not trained on that language."""


class LicenceRefused(InvalidJob):
    """The model's licence does not allow the use that the job is for."""


class CallbackRefused(InvalidJob):
    """The job asks for a callback to a host that is not on the allow list, or from workers that make none."""


class InvalidJobList(InvalidJob):
    """Lines of a job list that are no jobs; `details["lines"]` has the first ones with their errors."""


class BatchRunning(PermanentError):
    """Another process works on the batch's journal."""


class JournalMismatch(PermanentError):
    """The journal is of another job list, or of no batch at all."""


class InvalidMessage(PermanentError):
    """A message or record that this release cannot read; `details["payload"]` holds its beginning."""


class SchemaTooNew(InvalidMessage):
    """A record written by a newer release than the one that reads it."""


class SignatureInvalid(InvalidMessage):
    """What came as a callback was not signed with the secret, or too long ago."""


class MediaError(PermanentError):
    """The audio or video that was sent cannot be used."""


class MediaNotFound(MediaError):
    """No file at that path, or no object at that URI."""


class MediaUnreadable(MediaError):
    """Not audio or video, truncated, or holding samples that are not numbers."""


class MediaEmpty(MediaError):
    """No bytes, or no samples."""


class MediaTooLarge(MediaError):
    """More bytes, streams, channels or pixels than the limits allow."""


class MediaTooLong(MediaError):
    """More seconds than the task or the limits allow."""


class ForeignURI(PermanentError):
    """A URI outside the configured bucket or folder."""


class StorageRefused(PermanentError):
    """The object storage answered that it will not: wrong credentials, missing rights, no such bucket."""


class CheckpointInvalid(PermanentError):
    """The checkpoint folder is missing, incomplete or of another model."""


class AnswerUnreadable(PermanentError):
    """The model's answer is no record of the task's, not even on asking again; `details["text"]` holds it as it was."""


class JobFailed(PermanentError):
    """A fault in the worker that nobody foresaw; `details["type"]` names the exception."""


class JobQuarantined(PermanentError):
    """Workers were lost while they ran it, one after another; it is kept for `omnifleet dead`."""


class JobCancelled(PermanentError):
    """Someone cancelled the job."""


class DeadlineExceeded(PermanentError):
    """The job's deadline passed before its result was there."""


class UnknownJob(PermanentError):
    """No job of that id: never submitted here, or its record has expired."""


class StorageUnavailable(TransientError):
    """The object storage does not answer, or answers that it is busy."""


class BrokerUnavailable(TransientError):
    """Redis does not answer."""


class QueueFull(TransientError):
    """More jobs wait than the fleet takes on; `details["retry_after"]` says in how many seconds to come back."""


class OutOfMemory(TransientError):
    """The device had no memory left for this job at that moment."""


class EngineStopped(TransientError):
    """The engine failed or shut down while the job was in it."""


class ResultTimeout(TransientError, TimeoutError):
    """`result(timeout=…)` ran out; the job itself goes on."""


def _walk(cls: type[OmnifleetError]) -> Iterator[type[OmnifleetError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _walk(child)


def error_classes() -> dict[str, type[OmnifleetError]]:
    """Every class of the tree by its name on the wire."""
    return {cls.__name__: cls for cls in _walk(OmnifleetError) if cls.__module__ == __name__}


def error_from_wire(name: str, args: object) -> OmnifleetError:
    """The error that a worker raised, as the same class.

    An exception that is not of this tree (a worker of a newer release, or Celery's own) comes back as
    `JobFailed` with its name in `details["type"]`. Arguments of another form become the problem's text.
    """
    cls = error_classes().get(name)
    values: list[Any] = list(cast(Sequence[Any], args)) if isinstance(args, list | tuple) else [args]
    said = "; ".join(str(value) for value in values if value is not None) or "no message"
    if cls is None:
        return JobFailed(f"the worker failed with {name}: {said}", details={"type": name})
    return cls(*values) if _are_arguments(values) else cls(said)


def _are_arguments(values: list[Any]) -> bool:
    problem, field, remedy, details = [*values, None, None, None, None][:4]
    texts = isinstance(problem, str) and isinstance(field, str | None) and isinstance(remedy, str | None)
    return len(values) <= 4 and texts and problem != "" and isinstance(details, Mapping | None)
