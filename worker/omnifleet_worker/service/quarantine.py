"""Puts jobs aside that worker after worker was lost with."""

from __future__ import annotations

from omnifleet_shared.broker.attempts import AttemptStart
from omnifleet_shared.broker.dead_letters import DeadLetter
from omnifleet_shared.errors import JobQuarantined
from omnifleet_shared.schema.jobs import Job


def kills_workers(start: AttemptStart, max_deliveries: int) -> bool:
    """Whether the job is put aside. What was lost in company may have died of its neighbour, and is not, at first."""
    return start.unacked_starts > max_deliveries and start.died_alone > 0


def dead_letter(job: Job, start: AttemptStart) -> DeadLetter:
    """Make the dead letter of a job, with the reason that people read."""
    lost, alone, worker = start.unacked_starts - 1, start.died_alone, start.previous_worker
    reason = f"{lost} workers in a row were lost while they ran it, {alone} of them ran it alone, the last one {worker}"
    attempts, traceback = start.attempt - 1, start.traceback or None
    return DeadLetter(job=job, reason=reason, worker=worker, attempts=attempts, traceback=traceback)


def quarantined(letter: DeadLetter) -> JobQuarantined:
    """Make the error that the job's sender sees."""
    remedy = "`omnifleet dead show` tells more, `omnifleet dead replay` tries again"
    return JobQuarantined(letter.reason, None, remedy, {"worker": letter.worker, "attempts": letter.attempts})
