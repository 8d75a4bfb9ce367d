"""One delivery of one job: from a message under lease to a recorded outcome."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from omnifleet_shared.broker.attempts import Attempts, AttemptStart, Verdict
from omnifleet_shared.broker.dead_letters import DeadLetter, DeadLetters
from omnifleet_shared.errors import (
    BrokerUnavailable,
    EngineStopped,
    InvalidMessage,
    JobCancelled,
    JobFailed,
    JobQuarantined,
    OmnifleetError,
    PermanentError,
    TransientError,
)
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.results import JobResult

from ..engine.engine import Engine
from ..jobs.job_context import JobContext
from ..jobs.runner import JobRunner
from ..lease_renewer import LeaseRenewer
from ..observability.log_context import enter_stage, set_attempt
from ..observability.metrics import UNREADABLE, JobMetrics, Outcome, outcome_of
from ..retry import backoff_seconds, retry_until
from ..settings import WorkerSettings
from .progress_reporter import ProgressReporter
from .webhook_sender import WebhookSender

logger = logging.getLogger(__name__)
R = TypeVar("R")
MAX_BACKOFF = 120.0
"""Longest wait between two attempts, in seconds."""


class LeaseLost(Exception):
    """Raised where the lease went to another worker, or the job had ended before: there is nothing to record."""


class Redelivered(Exception):
    """Raised where the job has no outcome yet; its message is delivered again when the lease ends."""


@dataclass
class _Delivery:
    job_id: str
    tag: str
    callback: str | None
    attempt: int = 0
    task: str = UNREADABLE
    context: JobContext | None = None


class Deliveries:
    """Runs the jobs of deliveries, each on the thread that calls it, and records their outcomes.

    Args:
        jobs: runs a job from its inputs to its result.
        engine: batches what the jobs ask of the model.
        attempts: records starts and outcomes in Redis.
        progress: publishes the progress of running jobs.
        lease_renewer: renews the leases of running jobs.
        webhooks: posts the callbacks.
        settings: timeouts and limits.
        metrics: counts what becomes of every delivery.
    """

    def __init__(
        self,
        jobs: JobRunner,
        engine: Engine,
        attempts: Attempts,
        progress: ProgressReporter,
        lease_renewer: LeaseRenewer,
        webhooks: WebhookSender,
        settings: WorkerSettings,
        metrics: JobMetrics,
    ) -> None:
        self._jobs = jobs
        self._engine = engine
        self._attempts = attempts
        self._progress = progress
        self._lease_renewer = lease_renewer
        self._webhooks = webhooks
        self._settings = settings
        self._metrics = metrics
        self._dead_letters = DeadLetters.connect(settings)
        self._runs: dict[str, JobContext] = {}
        self._lock = threading.Lock()
        self._handing_back = False

    def process(self, payload: object, job_id: str, tag: str) -> dict[str, Any]:
        """Run the job of a message and record its outcome.

        Args:
            payload: the job record as it was decoded.
            job_id: the id that the message was sent under.
            tag: of the message's lease.

        Returns:
            The result record, as JSON values.

        Raises:
            OmnifleetError: the outcome, recorded; a transient one where no attempts are left.
            Redelivered: there is no outcome yet; the message is delivered again when its lease ends.
            LeaseLost: the lease went to another worker, or the job had ended before. Nothing was recorded.
        """
        self._lease_renewer.mark_running(tag)
        delivery = _Delivery(job_id, tag, self._webhooks.callback_url(payload))
        with self._metered(delivery):
            return self._process(payload, delivery)

    def _process(self, payload: object, delivery: _Delivery) -> dict[str, Any]:
        job_id, tag = delivery.job_id, delivery.tag
        enter_stage("begin")
        try:
            job = _read(payload, job_id)
            delivery.task = f"{job.namespace}.{job.task.name}"
            self._webhooks.validate_callback(job)
            delivery.attempt = self._begin(job, tag)
            set_attempt(delivery.attempt)
            result = self._run(job, delivery)
        except TransientError as error:
            self._retry_later(delivery, error)
            raise
        except PermanentError as error:
            self._fail(delivery, error)
            raise
        except LeaseLost:
            raise
        except Exception as error:
            raise self._redelivered(job_id, error) from error
        self._record(delivery, lambda: self._attempts.succeed(result, tag, delivery.callback))
        self._delete_parts(delivery)
        return result.model_dump(mode="json")

    def close(self) -> None:
        """Close the connections that were opened here."""
        self._dead_letters.close()

    def hand_back(self) -> None:
        """End every run at its next step and give its message back to the queue at once."""
        self._handing_back = True
        with self._lock:
            contexts = list(self._runs.values())
        for context in contexts:
            context.cancel(EngineStopped("the worker shuts down"))

    def abandon(self, tag: str) -> None:
        """End the run of a lease that was lost: another worker has the job."""
        with self._lock:
            context = self._runs.get(tag)
        if context is not None:
            extra = {"action": "job_abandoned", "job_id": context.job.job_id, "attempt": context.attempt}
            logger.warning("another worker has the job: %s", context.job.job_id, extra=extra)
            context.cancel(EngineStopped("the lease was lost"))

    @contextmanager
    def _metered(self, delivery: _Delivery) -> Iterator[None]:
        start = time.monotonic()

        def count(outcome: Outcome, error: BaseException | None = None) -> None:
            self._metrics.ended(delivery.task, outcome, time.monotonic() - start, error)

        try:
            yield
        except LeaseLost:
            count("dropped")
            raise
        except Redelivered as error:
            cause = error.__cause__
            handed_back = self._handing_back and isinstance(cause, EngineStopped)
            count("handed_back" if handed_back else "retried", cause)
            raise
        except OmnifleetError as error:
            count(outcome_of(error), error)
            raise
        count("succeeded")

    def _begin(self, job: Job, tag: str) -> int:
        start = self._retry_redis(job.job_id, lambda: self._attempts.begin(job.job_id, tag))
        if start.verdict in ("lost", "ended"):
            raise LeaseLost(start.verdict)
        if start.verdict == "cancelled":
            raise JobCancelled("the job was cancelled before it started")
        if start.unacked_starts > self._settings.max_deliveries:
            raise self._quarantine(job, start)
        queued = max(0.0, time.time() - job.submitted_at.timestamp())  # clocks of two machines may disagree
        self._metrics.begun(job.priority, queued, start.attempt, start.unacked_starts)
        return start.attempt

    def _run(self, job: Job, delivery: _Delivery) -> JobResult:
        delivery.context = context = JobContext(job, self._engine, attempt=delivery.attempt)
        about: dict[str, Any] = {"job_id": job.job_id, "attempt": delivery.attempt, "task": delivery.task}
        logger.info("job started: %s", job.job_id, extra={"action": "job_started", **about})
        try:
            with self._tracked(delivery.tag, context), self._progress.tracking(context):
                result = self._run_with_typed_errors(context)
        finally:
            self._metrics.spent(context.timings.model_dump())
            self._metrics.resumed(context.resumed_from)
        about |= {"timings": result.timings.model_dump(), "resumed_from": context.resumed_from}
        logger.info("job done: %s", job.job_id, extra={"action": "job_done", **about})
        return result

    def _run_with_typed_errors(self, context: JobContext) -> JobResult:
        try:
            return self._jobs.run(context)
        except OmnifleetError:
            raise
        except Exception as error:
            extra = {"action": "job_crashed", "job_id": context.job.job_id}
            logger.exception("job failed unexpectedly: %s", context.job.job_id, extra=extra)
            name = type(error).__name__
            problem = f"the worker failed with {name}: {error}"
            raise JobFailed(problem, None, "Report it with the job id", {"type": name}) from error

    @contextmanager
    def _tracked(self, tag: str, context: JobContext) -> Iterator[None]:
        with self._lock:
            self._runs[tag] = context
        try:
            yield
        finally:
            with self._lock:
                del self._runs[tag]

    def _quarantine(self, job: Job, start: AttemptStart) -> JobQuarantined:
        attempts, worker = start.attempt - 1, start.previous_worker
        reason = f"{start.unacked_starts - 1} workers in a row were lost while they ran it, the last one {worker}"
        traceback = start.traceback or None
        letter = DeadLetter(job=job, reason=reason, worker=worker, attempts=attempts, traceback=traceback)
        self._retry_redis(job.job_id, lambda: self._dead_letters.put(letter))
        remedy = "`omnifleet dead show` tells more, `omnifleet dead replay` tries again"
        return JobQuarantined(reason, None, remedy, {"worker": worker, "attempts": attempts})

    @staticmethod
    def _redelivered(job_id: str, error: Exception) -> Redelivered:
        # Celery would take the message of a job that has no outcome off the queue, and the job would be lost.
        extra = {"action": "delivery_crashed", "job_id": job_id}
        logger.exception("delivery failed unexpectedly, and is delivered again: %s", job_id, extra=extra)
        return Redelivered(f"the worker failed with {type(error).__name__}: {error}")

    def _fail(self, delivery: _Delivery, error: OmnifleetError) -> None:
        _log("job failed", "job_failed", delivery.job_id, error)
        about = (delivery.job_id, error, delivery.tag, delivery.callback)
        self._record(delivery, lambda: self._attempts.fail(*about))
        self._delete_parts(delivery)

    def _delete_parts(self, delivery: _Delivery) -> None:
        # A message that could not be read has none, and its id may be anything.
        if delivery.task != UNREADABLE:
            self._jobs.delete_parts(delivery.context, delivery.job_id)

    def _retry_later(self, delivery: _Delivery, error: TransientError) -> None:
        """Leave the job to another attempt, or fail it where there is none left."""
        handed_back = self._handing_back and isinstance(error, EngineStopped)
        if delivery.attempt >= self._settings.max_attempts and not handed_back:
            self._fail(delivery, error)
            return
        _log("job is tried again", "job_retried", delivery.job_id, error)
        self._record(delivery, lambda: self._attempts.retry(delivery.job_id, error, delivery.tag))
        wait = 0.0 if handed_back else self._backoff(delivery)
        # Renewed no more before its end is set: a renewal in between would set it later again.
        self._lease_renewer.stop_renewing(delivery.tag)
        with suppress(BrokerUnavailable):  # the lease then ends in its own time
            self._retry_redis(delivery.job_id, lambda: self._lease_renewer.leases.postpone(delivery.tag, wait))
            if handed_back:
                self._lease_renewer.leases.recover()
        raise Redelivered(str(error)) from error

    def _record(self, delivery: _Delivery, write: Callable[[], Verdict]) -> None:
        enter_stage("record")
        try:
            verdict = self._retry_redis(delivery.job_id, write)
        except BrokerUnavailable as error:
            raise Redelivered(f"its outcome cannot be recorded: {error}") from error
        if verdict != "written":
            extra = {"action": "outcome_dropped", "job_id": delivery.job_id, "verdict": verdict}
            logger.warning("outcome dropped, %s: %s", verdict, delivery.job_id, extra=extra)
            if verdict == "ended":
                self._delete_parts(delivery)
            raise LeaseLost(verdict)
        if delivery.callback is not None:
            self._webhooks.wake()

    def _backoff(self, delivery: _Delivery) -> float:
        return backoff_seconds(max(1, delivery.attempt), self._settings.retry_backoff, MAX_BACKOFF)

    def _retry_redis(self, job_id: str, work: Callable[[], R]) -> R:
        return retry_until(work, BrokerUnavailable, self._settings.redis_patience, job_id=job_id)


def _read(payload: object, job_id: str) -> Job:
    job = read_job(payload)
    if job.job_id != job_id:
        problem = f"the message {job_id!r} carries a job of another id"
        raise InvalidMessage(problem, "job_id", "Send a job under its own id")
    return job


def _log(message: str, action: str, job_id: str, error: OmnifleetError) -> None:
    extra = {"action": action, "job_id": job_id, "error": type(error).__name__}
    logger.warning("%s: %s %s", message, job_id, error, extra=extra)
