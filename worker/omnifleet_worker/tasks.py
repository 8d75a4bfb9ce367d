"""The Celery tasks: one a namespace, so that operators read what runs; all of them run a job record."""

from __future__ import annotations

import logging
import random
from typing import Any

from celery import Celery, Task
from omnifleet_shared.errors import JobFailed, PermanentError, TransientError
from omnifleet_shared.names import CELERY_TASKS

from .fleet_worker import FleetWorker
from .settings import WorkerSettings

logger = logging.getLogger(__name__)
LONGEST_BACKOFF = 120.0
"""Seconds."""


def register_tasks(app: Celery, fleet: FleetWorker) -> None:
    """Add omnifleet's tasks to a worker's app."""

    def run(task: Task, /, *args: Any, **kwargs: Any) -> dict[str, Any]:
        # Any arguments are taken, so that a wrong message fails as InvalidMessage and not as a TypeError.
        return run_job(task, fleet, kwargs.get("job", args[0] if args else None))

    for name in CELERY_TASKS.values():
        # The result's head is enough for logs and Flower: further on it holds presigned links.
        options = {"bind": True, "throws": (PermanentError,), "typing": False, "resultrepr_maxsize": 128}
        app.task(run, name=name, **options)


def run_job(task: Task, fleet: FleetWorker, payload: object) -> dict[str, Any]:
    """Run the job of a message; a transient error becomes Celery's retry while attempts are left."""
    job_id = str(task.request.id)
    try:
        return fleet.run(payload, job_id)
    except PermanentError as error:
        _log_failure("job failed", "job_failed", job_id, error)
        raise
    except TransientError as error:
        attempt = task.request.retries + 1
        if attempt >= fleet.settings.max_attempts:
            _log_failure("job failed, no attempts left", "job_failed", job_id, error)
            raise
        _log_failure("job is tried again", "job_retried", job_id, error)
        raise task.retry(exc=error, countdown=backoff(attempt, fleet.settings), max_retries=None) from error
    except Exception as error:
        logger.exception("job failed unforeseen", extra={"action": "job_crashed", "job_id": job_id})
        name = type(error).__name__
        problem = f"the worker failed with {name}: {error}"
        raise JobFailed(problem, None, "Report it with the job id", {"type": name}) from error


def backoff(attempt: int, settings: WorkerSettings) -> float:
    """Seconds to wait after that attempt: doubled each time, within half and all of it at random."""
    longest = min(LONGEST_BACKOFF, settings.retry_backoff * 2 ** (attempt - 1))
    return longest * random.uniform(0.5, 1.0)


def _log_failure(message: str, action: str, job_id: str, error: Exception) -> None:
    extra = {"action": action, "job_id": job_id, "error": type(error).__name__}
    logger.warning("%s: %s %s", message, job_id, error, extra=extra)
