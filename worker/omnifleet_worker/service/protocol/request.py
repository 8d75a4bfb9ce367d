"""Celery's view of a delivery: what `inspect` and Flower see of it, and what Celery may decide about it: nothing."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.worker.request import Request
from celery.worker.state import task_ready
from omnifleet_shared.errors import JobCancelled, JobFailed, OmnifleetError


class FleetRequest(Request):
    """A delivery as Celery's consumer keeps it. Outcomes are recorded by `Deliveries`, and by nobody else."""

    def revoked(self) -> bool:
        """Discard nothing: a cancellation, and a message that expired, are outcomes, which a delivery records."""
        return False

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return what `celery inspect` shows: of the arguments no more than Flower does, for they may hold secrets."""
        return dict(super().info(safe=True))

    def send_event(self, type: str, **fields: Any) -> None:
        """Send a task event by the dispatcher of now: the one of the start is closed once Redis was away."""
        app: Any = self.app
        dispatcher = app.consumer.event_dispatcher or self.eventer
        if dispatcher and dispatcher.enabled and self.task.send_events:
            dispatcher.send(type, uuid=self.id, **fields)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Tell Flower of a typed error in its own words: a traceback of the worker's says nothing of a bad file."""
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        if not isinstance(error, OmnifleetError) or isinstance(error, JobFailed):
            super().on_failure(exc_info, send_failed_event, return_ok)
            return
        task_ready(self)
        self.acknowledge()
        if isinstance(error, JobCancelled):
            self.send_event("task-revoked", terminated=False, signum=None, expired=False)
        else:
            self.send_event("task-failed", exception=f"{type(error).__name__}: {error}", traceback="")
