"""What a worker knows of one delivery while it lasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from omnifleet_shared.broker.attempts import AttemptStart
from omnifleet_shared.broker.dead_letters import DeadLetter
from omnifleet_shared.errors import DeadlineExceeded, EngineStopped, InvalidMessage
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.results import JobResult, Route

from ..jobs.job_context import JobContext
from ..observability.metrics import UNREADABLE


@dataclass
class OpenDelivery:
    """A delivery from the moment that its message is received until its end is recorded."""

    job_id: str
    tag: str
    callback: str | None
    expires: datetime | None = None
    """Time after which it is not to be started."""
    route: Route | None = None
    """Why it came to this worker's model, where there was a choice."""
    start: AttemptStart = field(default_factory=lambda: AttemptStart("lost"))
    """Of the attempt, once that began."""
    task: str = UNREADABLE
    context: JobContext | None = None
    """Of its run, once that began."""
    letter: DeadLetter | None = None
    """Where the job is put aside."""
    is_workers_fault: bool = False
    """Whether it ended for a fault of the worker, which says nothing of the job: no limit of the job's counts."""

    @property
    def attempt(self) -> int:
        """Number of the attempt, from 1; 0 before it began."""
        return self.start.attempt

    @property
    def counted_attempts(self) -> int:
        """Attempts that count, this one included: not those that ended for a fault of their worker."""
        return self.start.attempt - self.start.handed_back

    @property
    def gpu_seconds(self) -> float:
        """The device's time that its run took so far."""
        return 0.0 if self.context is None else self.context.gpu_seconds

    def refuse_expired(self) -> None:
        """Raise DeadlineExceeded where the message has expired before this start."""
        if self.expires is not None and datetime.now(UTC) > self.expires:
            problem = f"the message expired at {self.expires.isoformat()}, before a worker could start it"
            raise DeadlineExceeded(problem, "expires", "Send it with a later `expires`, or start more workers")

    def add_route(self, result: JobResult) -> JobResult:
        """Return the result with the route of its job."""
        return result if self.route is None else result.model_copy(update={"route": self.route})

    def end(self, reason: str) -> None:
        """End the run at its next step, which is not the job's fault."""
        self.is_workers_fault = True
        if self.context is not None:
            self.context.cancel(EngineStopped(reason))


def read_own_job(payload: object, job_id: str) -> Job:
    """Parse the job of a message. Raises InvalidMessage for what is none, or one of another id than the message's."""
    job = read_job(payload)
    if job.job_id != job_id:
        problem = f"the message {job_id!r} carries a job of another id"
        raise InvalidMessage(problem, "job_id", "Send a job under its own id")
    return job
