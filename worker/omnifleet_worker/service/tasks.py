"""The Celery tasks: one for each namespace, so that operators see what runs; all of them run a job record."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.keys import CELERY_TASKS, ROUTE
from omnifleet_shared.observability import tracing as traces
from omnifleet_shared.schema.results import JobResult

from .delivery import LeaseLost, Redelivered
from .protocol.headers import read_route, read_time
from .protocol.request import FleetRequest
from .worker import FleetWorker


def register_tasks(app: Celery, fleet: FleetWorker) -> None:
    """Add omnifleet's tasks to a worker's app."""

    def run(task: Task, /, *args: Any, **kwargs: Any) -> str:
        # Any arguments are taken, so that a wrong message fails as InvalidMessage and not as a TypeError.
        payload = kwargs.get("job", args[0] if args else None)
        with traced(task, payload):
            return in_short(run_job(task, fleet, payload))

    about: dict[str, Any] = {"bind": True, "throws": (OmnifleetError,), "typing": False, "Request": FleetRequest}
    for name in CELERY_TASKS.values():
        app.task(run, name=name, **about)


def traced(task: Task, payload: object) -> AbstractContextManager[Any]:
    """Trace a delivery, and the wait in the queue before it where the message carries a trace."""
    request = task.request  # looked up in Celery's stack of them
    carried = {name: value for name in traces.HEADERS if isinstance(value := getattr(request, name, None), str)}
    if carried and (since := _submitted_at(payload)) is not None:
        traces.record_wait("queue", since, carried)
    return traces.span("process", "consumer", parent=carried, attributes={"job.id": str(request.id)})


def _submitted_at(payload: object) -> float | None:
    submitted_at = payload.get("submitted_at") if isinstance(payload, Mapping) else None
    try:
        return datetime.fromisoformat(submitted_at).timestamp() if isinstance(submitted_at, str) else None
    except (ValueError, OverflowError):
        return None


def in_short(result: JobResult) -> str:
    """Summarise a result for Celery's log and Flower, without its text and without presigned links."""
    artifact, text = result.artifact, result.text or ""
    made = f"{len(text)} characters" if artifact is None else f"{artifact.seconds:.1f} s of {artifact.format}"
    return f"{made}, attempt {result.attempts}"


def run_job(task: Task, fleet: FleetWorker, payload: object) -> JobResult:
    """Process a delivery, and translate its end into what Celery does with the message."""
    request = task.request
    tag = str(request.properties["delivery_tag"])
    try:
        expires, route = read_time(request.expires), read_route(getattr(request, ROUTE, None))
        return fleet.deliveries.process(payload, str(request.id), tag, expires, route)
    except LeaseLost as error:
        raise Ignore(str(error)) from error
    except Redelivered as error:
        task.send_event("task-retried", exception=str(error), traceback="")
        # Not acknowledged: the lease says when it is delivered again, and meanwhile it occupies no worker.
        raise Reject(str(error), requeue=False) from error
