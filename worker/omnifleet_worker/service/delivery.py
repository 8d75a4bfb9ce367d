"""One delivery of one job: from a message under lease to a recorded outcome."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TypeVar

from omnifleet_shared.broker.attempts import Attempts, Fault, Verdict
from omnifleet_shared.errors import (
    BrokerError,
    BrokerRefused,
    DeviceFailed,
    DiskFull,
    EngineStopped,
    JobCancelled,
    JobFailed,
    OmnifleetError,
    PermanentError,
    StorageRefused,
    TransientError,
)
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.results import JobResult, Route

from ..engine.engine import Engine
from ..jobs.job_context import JobContext
from ..jobs.runner import JobRunner
from ..lease_renewer import LeaseRenewer
from ..observability.log_context import enter_stage, set_attempt
from ..observability.metrics import UNREADABLE, JobMetrics, Outcome, outcome_of
from ..retry import backoff_seconds, retry_until
from ..settings import WorkerSettings
from .job_errors import typed_job_errors
from .model_check import ModelCheck
from .open_delivery import OpenDelivery, read_own_job
from .progress_reporter import ProgressReporter
from .quarantine import dead_letter, kills_workers, quarantined
from .storage_check import StorageCheck
from .webhook_sender import WebhookSender

logger = logging.getLogger(__name__)
R = TypeVar("R")
MAX_BACKOFF = 120.0
"""Longest wait between two attempts, in seconds."""
UNFORESEEN_ATTEMPTS = 2
"""Attempts after which an unforeseen error is the outcome."""


class LeaseLost(Exception):
    """Raised where the lease went to another worker, or the job had ended before: there is nothing to record."""


class Redelivered(Exception):
    """Raised where the job has no outcome yet; its message is delivered again when the lease ends."""


class Deliveries:
    """Runs the jobs of deliveries, each on the thread that calls it, and records their outcomes.

    Args:
        jobs: runs a job from its inputs to its result.
        engine: batches what the jobs ask of the model.
        attempts: records starts and outcomes in Redis.
        progress: publishes the progress of running jobs.
        lease_renewer: renews the leases of running jobs.
        storage_check: finds out whose fault it is that the storage refuses.
        model_check: finds out whose fault an unforeseen error is.
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
        storage_check: StorageCheck,
        model_check: ModelCheck,
        webhooks: WebhookSender,
        settings: WorkerSettings,
        metrics: JobMetrics,
    ) -> None:
        self._jobs = jobs
        self._engine = engine
        self._attempts = attempts
        self._progress = progress
        self._lease_renewer = lease_renewer
        self._storage_check = storage_check
        self._model_check = model_check
        self._webhooks = webhooks
        self._settings = settings
        self._metrics = metrics
        self._open: dict[str, OpenDelivery] = {}
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._handing_back: str | None = None

    def process(
        self, payload: object, job_id: str, tag: str, expires: datetime | None = None, route: Route | None = None
    ) -> JobResult:
        """Run the job of a message and record its outcome.

        Args:
            payload: the job record as it was decoded.
            job_id: the id that the message was sent under.
            tag: of the message's lease.
            expires: time after which the message is not to be started (Celery's `expires`).
            route: why it came to this worker's model, for the result; None where there was no choice.

        Returns:
            The result, as it was recorded.

        Raises:
            OmnifleetError: the outcome, recorded; a transient one where no attempts are left.
            Redelivered: there is no outcome yet; the message is delivered again when its lease ends.
            LeaseLost: the lease went to another worker, or the job had ended before. Nothing was recorded.
        """
        self._lease_renewer.mark_running(tag)
        delivery = OpenDelivery(job_id, tag, self._webhooks.callback_url(payload), expires, route)
        with self._kept_open(delivery), self._metered(delivery):
            if self._handing_back is not None:
                delivery.is_workers_fault = True
                raise self._given_back(delivery, EngineStopped(self._handing_back))
            return self._process(payload, delivery)

    def _process(self, payload: object, delivery: OpenDelivery) -> JobResult:
        job_id, tag = delivery.job_id, delivery.tag
        enter_stage("begin")
        try:
            job = read_own_job(payload, job_id)
            delivery.task = f"{job.namespace}.{job.task.name}"
            self._webhooks.validate_callback(job)
            delivery.refuse_expired()
            self._begin(job, delivery)
            set_attempt(delivery.attempt)
            result = self._run(job, delivery)
        except (StorageRefused, DiskFull) as error:
            self._find_fault(delivery, error)
            raise
        except JobFailed as error:
            self._find_fault_in_model(delivery, error)
            raise
        except (TransientError, BrokerRefused) as error:
            self._retry_later(delivery, error)
            raise
        except PermanentError as error:
            self._fail(delivery, error)
            raise
        except LeaseLost:
            raise
        except Exception as error:
            raise self._redelivered(job_id, error) from error
        self._model_check.succeeded()
        about, spent = (result, tag, delivery.callback), delivery.gpu_seconds
        self._finish(delivery, lambda: self._attempts.succeed(*about, gpu_seconds=spent))
        return result

    def hand_back(self, reason: str) -> None:
        """End every run at its next step and give its message back to the queue at once, and so with what comes yet."""
        with self._lock:
            self._handing_back = reason
            for delivery in self._open.values():
                delivery.end(reason)

    def take_again(self) -> None:
        """Run what comes from now on."""
        self._handing_back = None

    def await_end(self, seconds: float) -> None:
        """Wait until every delivery has ended, but no longer than that; what has not is recorded as handed back."""
        with self._ended:
            self._ended.wait_for(lambda: not self._open, seconds)
            left = list(self._open.values())
        for delivery in left:
            extra = {"action": "job_left", "job_id": delivery.job_id}
            logger.warning("job did not end: %s", delivery.job_id, extra=extra)
            with suppress(BrokerError):
                reason = EngineStopped(self._handing_back or "the worker stepped aside")
                about = (delivery.job_id, reason, delivery.tag)
                self._attempts.retry(*about, "worker", gpu_seconds=delivery.gpu_seconds)

    def abandon(self, tag: str) -> None:
        """End the run of a lease that was lost: another worker has the job."""
        with self._lock:
            delivery = self._open.get(tag)
        if delivery is not None:
            extra = {"action": "job_abandoned", "job_id": delivery.job_id, "attempt": delivery.attempt}
            logger.warning("another worker has the job: %s", delivery.job_id, extra=extra)
            delivery.end("the lease was lost")

    @contextmanager
    def _kept_open(self, delivery: OpenDelivery) -> Iterator[None]:
        with self._lock:
            self._open[delivery.tag] = delivery
        try:
            yield
        finally:
            with self._ended:
                del self._open[delivery.tag]
                self._ended.notify_all()

    @contextmanager
    def _metered(self, delivery: OpenDelivery) -> Iterator[None]:
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
            count("handed_back" if delivery.is_workers_fault else "retried", cause)
            raise
        except OmnifleetError as error:
            count(outcome_of(error), error)
            raise
        count("succeeded")

    def _begin(self, job: Job, delivery: OpenDelivery) -> None:
        start = self._retry_redis(job.job_id, lambda: self._attempts.begin(job.job_id, delivery.tag))
        if start.verdict in ("lost", "ended"):
            raise LeaseLost(start.verdict)
        if start.verdict == "cancelled":
            raise JobCancelled("the job was cancelled before it started")
        if kills_workers(start, self._settings.max_deliveries):
            delivery.letter = dead_letter(job, start)
            raise quarantined(delivery.letter)
        delivery.start = start
        queued = max(0.0, time.time() - job.submitted_at.timestamp())  # clocks of two machines may disagree
        self._metrics.begun(job.priority, queued, start.attempt, start.unacked_starts)

    def _run(self, job: Job, delivery: OpenDelivery) -> JobResult:
        left = delivery.start.seconds_until(job.deadline)
        context = JobContext(job, self._engine, attempt=delivery.attempt, tag=delivery.tag, seconds_left=left)
        with self._lock:
            delivery.context = context
            if self._handing_back is not None:
                delivery.end(self._handing_back)
        about: dict[str, Any] = {"job_id": job.job_id, "attempt": delivery.attempt, "task": delivery.task}
        logger.info("job started: %s", job.job_id, extra={"action": "job_started", **about})
        try:
            with self._progress.tracking(context), typed_job_errors(job.job_id):
                result = self._jobs.run(context)
        finally:
            self._metrics.spent(context.seconds_spent, context.resumed_from)
        about |= {"timings": result.timings.model_dump(), "resumed_from": context.resumed_from}
        logger.info("job done: %s", job.job_id, extra={"action": "job_done", **about})
        return delivery.add_route(result)

    @staticmethod
    def _redelivered(job_id: str, error: Exception) -> Redelivered:
        # Celery would take the message of a job that has no outcome off the queue, and the job would be lost.
        extra = {"action": "delivery_crashed", "job_id": job_id}
        logger.exception("delivery failed unexpectedly, and is delivered again: %s", job_id, extra=extra)
        return Redelivered(f"the worker failed with {type(error).__name__}: {error}")

    def _fail(self, delivery: OpenDelivery, error: OmnifleetError) -> None:
        _log("job failed", "job_failed", delivery.job_id, error)
        about = (delivery.job_id, error, delivery.tag, delivery.callback, delivery.letter)
        self._finish(delivery, lambda: self._attempts.fail(*about, gpu_seconds=delivery.gpu_seconds))

    def _find_fault(self, delivery: OpenDelivery, error: StorageRefused | DiskFull) -> None:
        """Give the job back where the worker is at fault, and fail it where the workers agree that the job is."""
        delivery.is_workers_fault |= self._storage_check.is_workers_fault(error)
        if delivery.is_workers_fault or isinstance(error, DiskFull):
            self._retry_later(delivery, error)
        elif self._storage_check.is_jobs_fault(delivery.start.refused_by):
            self._fail(delivery, error)
        else:
            self._retry_later(delivery, error, "storage")

    def _find_fault_in_model(self, delivery: OpenDelivery, error: JobFailed) -> None:
        """Give the job back where the worker is at fault; else it has another attempt, elsewhere perhaps, and fails."""
        delivery.is_workers_fault |= self._model_check.is_workers_fault(delivery.job_id, error)
        if delivery.is_workers_fault or delivery.counted_attempts < UNFORESEEN_ATTEMPTS:
            self._retry_later(delivery, error)
        else:
            self._fail(delivery, error)

    def _retry_later(self, delivery: OpenDelivery, error: OmnifleetError, fault: Fault = "") -> None:
        """Leave the job to another attempt, or fail it where there is none left."""
        stopped = self._handing_back is not None and isinstance(error, EngineStopped)
        delivery.is_workers_fault |= stopped or isinstance(error, DeviceFailed)
        if delivery.counted_attempts >= self._settings.max_attempts and not delivery.is_workers_fault:
            self._fail(delivery, error)
            return
        _log("job is tried again", "job_retried", delivery.job_id, error)
        if isinstance(error, DeviceFailed) and delivery.start.handed_back >= self._settings.max_deliveries:
            # Too many devices broke with it to be chance: its lease ends as if its worker had been lost, and it runs
            # alone next.
            self._lease_renewer.stop_renewing(delivery.tag)
            raise Redelivered(str(error)) from error
        fault, wait = ("worker", 0.0) if delivery.is_workers_fault else (fault, self._backoff(delivery))
        about, spent = (delivery.job_id, error, delivery.tag), delivery.gpu_seconds
        self._record(delivery, lambda: self._attempts.retry(*about, fault, gpu_seconds=spent))
        raise self._given_back(delivery, error, wait)

    def _given_back(self, delivery: OpenDelivery, error: OmnifleetError, wait: float = 0.0) -> Redelivered:
        # Renewed no more before its end is set: a renewal in between would set it later again.
        self._lease_renewer.stop_renewing(delivery.tag)
        with suppress(BrokerError):  # the lease then ends in its own time
            self._retry_redis(delivery.job_id, lambda: self._lease_renewer.leases.postpone(delivery.tag, wait))
            if not wait:
                self._lease_renewer.leases.recover()
        redelivered = Redelivered(str(error))
        redelivered.__cause__ = error
        return redelivered

    def _finish(self, delivery: OpenDelivery, write: Callable[[], Verdict]) -> None:
        self._lease_renewer.mark_finishing(delivery.tag)
        self._record(delivery, write)
        self._lease_renewer.stop_renewing(delivery.tag)
        if delivery.task != UNREADABLE:
            self._jobs.delete_parts(delivery.context, delivery.job_id)
        if delivery.callback is not None:
            self._webhooks.wake()

    def _record(self, delivery: OpenDelivery, write: Callable[[], Verdict]) -> None:
        enter_stage("record")
        try:
            verdict = self._retry_redis(delivery.job_id, write)
        except BrokerError as error:
            raise Redelivered(f"its outcome cannot be recorded: {error}") from error
        if verdict != "written":
            extra = {"action": "outcome_dropped", "job_id": delivery.job_id, "verdict": verdict}
            logger.warning("outcome dropped, %s: %s", verdict, delivery.job_id, extra=extra)
            raise LeaseLost(verdict)

    def _backoff(self, delivery: OpenDelivery) -> float:
        return backoff_seconds(max(1, delivery.attempt), self._settings.retry_backoff, MAX_BACKOFF)

    def _retry_redis(self, job_id: str, work: Callable[[], R]) -> R:
        return retry_until(work, BrokerError, self._settings.redis_patience, job_id=job_id)


def _log(message: str, action: str, job_id: str, error: OmnifleetError) -> None:
    extra = {"action": action, "job_id": job_id, "error": type(error).__name__}
    logger.warning("%s: %s %s", message, job_id, error, extra=extra)
