"""The body of callbacks, and the state of their delivery."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, Field, ValidationError, model_validator

from ..errors import InvalidMessage, JobCancelled, OmnifleetError, error_from_wire
from ..keys import SCHEMA_VERSION
from .base import JobId, Record
from .jobs import check_record, payload_sample
from .results import JobResult, JobStatus

FinalStatus = Literal[JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED]


class CallbackError(Record):
    """The error of a job that has no result."""

    type: str
    """Class of the error, as drawn in `omnifleet_shared/errors.py`."""
    problem: str
    field: str | None = None
    remedy: str | None = None
    details: dict[str, Any] = Field(default_factory=dict)


class CallbackOutcome(Record):
    """The body of a callback: the outcome of a job."""

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    delivery_id: str
    """Id of this outcome, the same each time that it is posted."""
    job_id: JobId
    status: FinalStatus
    result: JobResult | None = None
    error: CallbackError | None = None

    @model_validator(mode="after")
    def _result_or_error(self) -> Self:
        if (self.result is None) == (self.error is None):
            raise ValueError("an outcome is either a result or an error")
        return self

    @property
    def exception(self) -> OmnifleetError | None:
        """The error as the exception that `JobHandle.result` raises; None where there is a result."""
        error = self.error
        if error is None:
            return None
        return error_from_wire(error.type, [error.problem, error.field, error.remedy, error.details])


class CallbackDelivery(Record):
    """The state of the delivery of a job's callback."""

    status: Literal["pending", "delivered", "failed"]
    """`pending` until the receiver has answered with 2xx, or with something else too often."""
    delivery_id: str
    attempts: Annotated[int, Field(ge=0)]
    """Times that it was posted."""
    error: str | None = None
    """Why the last attempt failed."""
    at: AwareDatetime | None = None
    """When the status was set."""


def succeeded(result: JobResult, delivery_id: str) -> CallbackOutcome:
    """Make the outcome of a job that succeeded."""
    return CallbackOutcome(delivery_id=delivery_id, job_id=result.job_id, status=JobStatus.SUCCEEDED, result=result)


def failed(job_id: str, error: OmnifleetError, delivery_id: str) -> CallbackOutcome:
    """Make the outcome of a job that failed, was dead-lettered, or was cancelled."""
    status: FinalStatus = JobStatus.CANCELLED if isinstance(error, JobCancelled) else JobStatus.FAILED
    about: dict[str, Any] = {"problem": error.problem, "field": error.field, "remedy": error.remedy}
    wire = CallbackError(type=type(error).__name__, details=error.details, **about)
    return CallbackOutcome(delivery_id=delivery_id, job_id=job_id, status=status, error=wire)


def read_outcome(payload: object) -> CallbackOutcome:
    """Parse the outcome in a decoded JSON body.

    Raises:
        InvalidMessage: not an outcome.
        SchemaTooNew: written by a newer release.
    """
    try:
        return CallbackOutcome.model_validate(check_record(payload, "callback"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        problem = f"not the outcome of a job: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        remedy = "Upgrade whichever side is older"
        raise InvalidMessage(problem, "callback", remedy, payload_sample(payload)) from error
