"""The Celery tasks: one a namespace, so that operators read what runs; all of them run a job record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Celery, Task
from celery.exceptions import Ignore, Reject
from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.names import CELERY_TASKS

from .delivery import NotOurs, TriedAgain
from .fleet_worker import FleetWorker


def register_tasks(app: Celery, fleet: FleetWorker) -> None:
    """Add omnifleet's tasks to a worker's app."""

    def run(task: Task, /, *args: Any, **kwargs: Any) -> str:
        # Any arguments are taken, so that a wrong message fails as InvalidMessage and not as a TypeError.
        return in_short(run_job(task, fleet, kwargs.get("job", args[0] if args else None)))

    for name in CELERY_TASKS.values():
        app.task(run, name=name, bind=True, throws=(OmnifleetError,), typing=False)


def in_short(result: Mapping[str, Any]) -> str:
    """A result for Celery's log and Flower: neither what was said in it, nor links that open without a password."""
    artifact, text = result["artifact"], result["text"]
    made = f"{len(text)} characters" if artifact is None else f"{artifact['seconds']:.1f} s of {artifact['format']}"
    return f"{made}, attempt {result['attempts']}"


def run_job(task: Task, fleet: FleetWorker, payload: object) -> dict[str, Any]:
    """Carry a delivery out, and tell Celery what becomes of its message."""
    tag = str(task.request.properties["delivery_tag"])
    try:
        return fleet.deliveries.carry_out(payload, str(task.request.id), tag)
    except NotOurs as error:
        raise Ignore(str(error)) from error
    except TriedAgain as error:
        task.send_event("task-retried", exception=str(error), traceback="")
        # Not acknowledged: the lease says when it is delivered again, and meanwhile it occupies no worker.
        raise Reject(str(error), requeue=False) from error
