"""The record of a job's state in Redis, in Celery's own form (docs.celeryq.dev, "Redis backend").

One JSON object for each job under `celery-task-meta-<id>`; each new version is published on a channel of that name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import ValidationError

from ..errors import InvalidMessage, JobCancelled, JobFailed, OmnifleetError, error_from_wire
from ..keys import QUEUED
from .results import JobResult, JobStatus, read_result

STATE_KEY = "celery-task-meta-{job_id}"

STATUS_OF = {
    QUEUED: JobStatus.QUEUED,
    "STARTED": JobStatus.RUNNING,
    "RETRY": JobStatus.RETRYING,
    "SUCCESS": JobStatus.SUCCEEDED,
    "FAILURE": JobStatus.FAILED,
    "REVOKED": JobStatus.CANCELLED,
}


@dataclass(frozen=True, kw_only=True)
class JobState:
    """The state of a job at one moment."""

    status: JobStatus
    result: JobResult | None = None
    error: OmnifleetError | None = None
    """Why it failed, was cancelled, or is being retried."""


def queued_record(job_id: str) -> str:
    """Make the record of a job that was submitted and that no worker has started."""
    return _record(job_id, QUEUED)


def started_record(job_id: str) -> str:
    """Make the record of a job that a worker has started."""
    return _record(job_id, "STARTED")


def success_record(result: JobResult) -> str:
    """Make the record of a job that succeeded."""
    return _record(result.job_id, "SUCCESS", result.model_dump(mode="json"))


def failure_record(job_id: str, error: OmnifleetError) -> str:
    """Make the record of a job that failed for good, or was cancelled."""
    return _record(job_id, "FAILURE", _wire(error))


def retry_record(job_id: str, error: OmnifleetError) -> str:
    """Make the record of a job that failed and will be retried."""
    return _record(job_id, "RETRY", _wire(error))


def read_state(stored: bytes) -> JobState:
    """Parse the state in a record. Raises InvalidMessage for what is no record."""
    return _state(parse_record(stored))


def parse_record(stored: bytes) -> dict[str, Any]:
    """Parse a record's JSON object. Raises InvalidMessage for what is none."""
    try:
        record: object = json.loads(stored)
    except ValueError as error:
        raise unreadable("state", stored) from error
    if not isinstance(record, dict):
        raise unreadable("state", stored)
    return cast(dict[str, Any], record)


def unreadable(what: str, stored: bytes) -> InvalidMessage:
    """Make the error for something in Redis that this release cannot read."""
    details = {"payload": stored[:500].decode("utf-8", "replace")}
    return InvalidMessage(f"the {what} in Redis is no record", what, "Upgrade whichever side is older", details)


def _record(job_id: str, status: str, outcome: object = None) -> str:
    now = datetime.now(UTC).isoformat()
    fields = {"status": status, "result": outcome, "traceback": None, "children": [], "date_done": now}
    return json.dumps({**fields, "task_id": job_id})


def _wire(error: OmnifleetError) -> dict[str, Any]:
    return {"exc_type": type(error).__name__, "exc_message": error.args, "exc_module": type(error).__module__}


def _state(record: dict[str, Any]) -> JobState:
    # Celery's remaining states (PENDING, RECEIVED, custom ones) all mean that nothing is decided yet.
    status = STATUS_OF.get(str(record.get("status")), JobStatus.QUEUED)
    outcome = record.get("result")
    match status:
        case JobStatus.SUCCEEDED:
            return _success(outcome)
        case JobStatus.CANCELLED:
            return JobState(status=status, error=JobCancelled("the job was revoked"))
        case JobStatus.FAILED | JobStatus.RETRYING:
            error = _error(outcome)
            return JobState(status=JobStatus.CANCELLED if isinstance(error, JobCancelled) else status, error=error)
        case _:
            return JobState(status=status)


def _error(outcome: object) -> OmnifleetError:
    if not isinstance(outcome, dict) or "exc_type" not in outcome:
        return JobFailed("the worker left no reason")
    wire = cast(dict[str, Any], outcome)
    return error_from_wire(str(wire["exc_type"]), wire.get("exc_message") or ())


def _success(outcome: object) -> JobState:
    try:
        return JobState(status=JobStatus.SUCCEEDED, result=read_result(outcome))
    except (InvalidMessage, ValidationError) as error:
        failure = error if isinstance(error, OmnifleetError) else InvalidMessage(str(error), "result")
        return JobState(status=JobStatus.FAILED, error=failure)
