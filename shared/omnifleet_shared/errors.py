"""Every error that omnifleet raises. One tree; the two branches say whether trying again can help.

OmnifleetError
├── PermanentError                  the same job fails again: never retried
│   ├── InvalidSetting              the environment
│   │   └── BrokerRefused           Redis answers, and refuses: a password, a right, cluster mode
│   ├── InvalidJob                  the request itself
│   │   ├── UnknownTask
│   │   ├── TaskNotSupported
│   │   ├── LanguageNotSupported
│   │   ├── LicenceRefused
│   │   ├── CallbackRefused
│   │   ├── EditAmbiguous           what is to be edited can be read in several ways
│   │   ├── IdempotencyConflict     its idempotency key is another request's
│   │   └── InvalidJobList          lines of a batch that are no jobs
│   ├── BatchRunning                another process runs the batch
│   ├── JournalMismatch             the journal of another batch
│   ├── InvalidMessage              what came over the wire
│   │   ├── SchemaTooNew
│   │   └── SignatureInvalid
│   ├── MediaError                  what was sent as audio or video
│   │   ├── MediaNotFound
│   │   │   └── VoiceNotFound       never added, or removed since
│   │   ├── MediaUnreadable
│   │   ├── MediaEmpty
│   │   ├── MediaTooLarge
│   │   └── MediaTooLong
│   ├── ForeignURI                  outside the configured storage
│   ├── StorageRefused              wrong credentials, no such bucket
│   ├── CheckpointInvalid           the model's own files
│   ├── InvalidTrainingConfig       what a training run is to do
│   ├── InvalidTrainingData         lines of examples that are none
│   ├── AdapterInvalid              a trained adapter that is none, or another model's
│   │   └── AdapterNotFound         never added, or removed since
│   ├── AnswerUnreadable            the model's answer is not the record that the task promises
│   ├── JobFailed                   an unforeseen fault in a worker
│   ├── JobQuarantined              it killed several workers, and was dead-lettered
│   ├── JobCancelled
│   ├── DeadlineExceeded
│   ├── UnknownJob                  no such job id, or forgotten since
│   └── KeyRefused                  an API key that the gateway does not know
└── TransientError                  the same job may well succeed: retried with backoff, up to a limit
    ├── StorageUnavailable
    │   └── DiskFull                no room is left where the storage or the worker writes
    ├── BrokerUnavailable
    ├── NoModelFor                  no worker is ready that can do the job, and the caller would not wait
    ├── MessageLost                 the job's message was taken out of its queue: sent again, it is done
    ├── QueueFull                   a limit on jobs is reached
    ├── RateExceeded                an API key asks more often than it may
    │   └── QuotaExceeded           it has sent all its jobs of the day, or its tenant used up its GPU time
    ├── RequestTooSlow              the body of an HTTP request did not come in time
    ├── GatewayBusy                 the gateway serves as many requests as it may
    ├── OutOfMemory
    ├── ModelServerUnavailable      the speech server that a worker asks does not answer, or refuses the worker
    ├── EngineStopped
    │   └── DeviceFailed            the worker's device broke: its jobs go to another worker
    └── ResultTimeout               the caller stopped waiting; the job goes on

Errors cross the wire by class name with their four arguments and come back as the same class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast


class OmnifleetError(Exception):
    """Root of all errors that omnifleet raises.

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
    """An error that the same job would meet again; it is not retried."""


class TransientError(OmnifleetError):
    """An error that may pass; the job is retried with backoff, up to a limit."""


class InvalidSetting(PermanentError):
    """A setting that does not parse; `field` is its variable in the environment."""


class BrokerError(Exception):
    """Redis failed a call: BrokerUnavailable, which may pass, or BrokerRefused, which somebody must mend.

    Not of the tree: a program that waits for Redis whatever is wrong with it, as workers do, catches both by it.
    """


class BrokerRefused(InvalidSetting, BrokerError):
    """Redis answers, and refuses: the password, a right, the kind of server; `details["reply"]` has its own word."""


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


class EditAmbiguous(InvalidJob):
    """The request can be read in several ways, and nothing was done; `details["readings"]` lists the edits of each."""


class IdempotencyConflict(InvalidJob):
    """The idempotency key is that of another request; `details["differs"]` names the fields, `job_id` its job."""


class InvalidJobList(InvalidJob):
    """Lines of a job list that are no jobs; `details["lines"]` has the first ones with their errors."""


class BatchRunning(PermanentError):
    """Another process holds the lock of the batch's journal."""


class JournalMismatch(PermanentError):
    """The journal belongs to another job list, or is no batch's journal."""


class InvalidMessage(PermanentError):
    """A message or record that this release cannot read; `details["payload"]` holds its beginning."""


class SchemaTooNew(InvalidMessage):
    """A record written by a newer release than the one that reads it."""


class SignatureInvalid(InvalidMessage):
    """A callback was not signed with the secret, or too long ago."""


class MediaError(PermanentError):
    """The audio or video that was sent cannot be used."""


class MediaNotFound(MediaError):
    """No file at that path, or no object at that URI."""


class VoiceNotFound(MediaNotFound):
    """No voice of that name: it was never added, or it was removed since."""


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
    """The object storage refuses: wrong credentials, missing rights, no such bucket."""


class CheckpointInvalid(PermanentError):
    """The checkpoint folder is missing, incomplete or of another model."""


class InvalidTrainingConfig(PermanentError):
    """A training run's configuration does not hold, or is not that of the run it would go on with."""


class InvalidTrainingData(PermanentError):
    """Lines of a training run's data that are no examples; `details["lines"]` has the first ones with their fields."""


class AdapterInvalid(PermanentError):
    """What is given holds no trained adapter or transformer, or one of another checkpoint."""


class AdapterNotFound(AdapterInvalid):
    """No adapter of that name or hash: it was never added, or it was removed since."""


class AnswerUnreadable(PermanentError):
    """The model's answer is no record of the task's, not even on asking again; `details["text"]` holds it as it was."""


class JobFailed(PermanentError):
    """An unforeseen exception in the worker; `details["type"]` names it."""


class JobQuarantined(PermanentError):
    """Several workers in a row were lost while running the job; it is dead-lettered (`omnifleet dead`)."""


class JobCancelled(PermanentError):
    """Someone cancelled the job."""


class DeadlineExceeded(PermanentError):
    """The job's deadline passed before its result was there."""


class UnknownJob(PermanentError):
    """No job of that id: never submitted here, or its record has expired."""


class KeyRefused(PermanentError):
    """The gateway knows no such API key: none was sent, it was never made, or it was revoked."""


class StorageUnavailable(TransientError):
    """The object storage does not answer, or is busy."""


class DiskFull(StorageUnavailable):
    """No room is left on the disk of a storage that is a folder, or of the worker."""


class BrokerUnavailable(TransientError, BrokerError):
    """Redis does not answer, or not now: it loads, is full, or fails over; `details["reply"]` has its own word."""


class NoModelFor(TransientError):
    """No worker is ready whose model can do the job, and nobody would wait; `details["models"]` has models that can."""


class MessageLost(TransientError):
    """Somebody took the job's message out of Redis (a deleted or flushed queue): no worker can do it any more."""


class QueueFull(TransientError):
    """A limit on jobs is reached; `details["retry_after"]` gives the seconds after which to submit again."""


class RateExceeded(TransientError):
    """An API key makes more requests than its rate; `details["retry_after"]` gives the seconds to wait."""


class QuotaExceeded(RateExceeded):
    """A key's jobs of the day, or its tenant's GPU-seconds, are used up; `details["retry_after"]` gives the seconds."""


class RequestTooSlow(TransientError):
    """The body of a request to the gateway came too slowly, or not to its end."""


class GatewayBusy(TransientError):
    """The gateway serves as many requests as it may, or stops; `details["retry_after"]` says when to come again."""


class OutOfMemory(TransientError):
    """The device had no memory left for the job."""


class ModelServerUnavailable(TransientError):
    """The server that runs a worker's model does not answer, not to the end, or refuses the worker."""


class EngineStopped(TransientError):
    """The engine failed or shut down while it ran the job."""


class DeviceFailed(EngineStopped):
    """The device of the worker broke while the job was on it: the worker's process ends, and another does the job."""


class ResultTimeout(TransientError, TimeoutError):
    """`result(timeout=…)` ran out; the job itself goes on."""


def _walk(cls: type[OmnifleetError]) -> Iterator[type[OmnifleetError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _walk(child)


def error_classes() -> dict[str, type[OmnifleetError]]:
    """Give every error class by its name on the wire."""
    return {cls.__name__: cls for cls in _walk(OmnifleetError) if cls.__module__ == __name__}


def error_from_wire(name: str, args: object) -> OmnifleetError:
    """Rebuild the error that a worker raised, as the same class.

    An exception that is not of this tree (a worker of a newer release, or Celery's own) comes back as
    `JobFailed` with its name in `details["type"]`. Arguments of another form become the problem's text.
    """
    cls = error_classes().get(name)
    values: list[Any] = list(cast(Sequence[Any], args)) if isinstance(args, list | tuple) else [args]
    text = "; ".join(str(value) for value in values if value is not None) or "no message"
    if cls is None:
        return JobFailed(f"the worker failed with {name}: {text}", details={"type": name})
    return cls(*values) if _are_arguments(values) else cls(text)


def _are_arguments(values: list[Any]) -> bool:
    problem, field, remedy, details = [*values, None, None, None, None][:4]
    texts = isinstance(problem, str) and isinstance(field, str | None) and isinstance(remedy, str | None)
    return len(values) <= 4 and texts and problem != "" and isinstance(details, Mapping | None)
