"""Puts the job that a thread works for on its log lines, whichever library writes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from omnifleet_shared.observability import tracing as traces

Stage = Literal["receive", "begin", "fetch", "decode", "condition", "steps", "encode", "store", "record"]


@dataclass(frozen=True)
class LogContext:
    """The job that this thread works for."""

    job_id: str
    attempt: int = 0
    """0 until the start is counted."""
    stage: Stage = "receive"


_current: ContextVar[LogContext | None] = ContextVar("job", default=None)


def enter_job(job_id: str) -> None:
    """Log for this job on this thread until `leave_job`."""
    _current.set(LogContext(job_id))


def leave_job() -> None:
    """Log for no job on this thread any more."""
    _current.set(None)


@contextmanager
def log_job(job_id: str | None) -> Iterator[None]:
    """Log for this job, or for none, on this thread during the block."""
    token = _current.set(None if job_id is None else LogContext(job_id))
    try:
        yield
    finally:
        _current.reset(token)


def set_attempt(attempt: int) -> None:
    """Set the number of the attempt on the thread's log lines."""
    if (context := _current.get()) is not None:
        _current.set(LogContext(context.job_id, attempt, context.stage))


def enter_stage(stage: Stage) -> None:
    """Set the stage on the thread's log lines from now on."""
    if (context := _current.get()) is not None:
        _current.set(LogContext(context.job_id, context.attempt, stage))


@contextmanager
def in_stage(stage: Stage) -> Iterator[Any]:
    """Set the stage of log lines and trace during the block; yields the span, if there is one."""
    before = _current.get()
    enter_stage(stage)
    try:
        with traces.span(stage) as span:
            yield span
    finally:
        _current.set(before)


class JobFields(logging.Filter):
    """Gives every record the worker's name and, while its thread works for a job, the job's fields.

    Fields that a record has already are left as they are.

    Args:
        worker: the worker's name.
    """

    def __init__(self, worker: str) -> None:
        super().__init__()
        self._worker = worker

    def filter(self, record: logging.LogRecord) -> bool:
        fields: dict[str, object] = {"worker": self._worker}
        if (context := _current.get()) is not None:
            fields |= {"job_id": context.job_id, "attempt": context.attempt, "stage": context.stage}
        for name, value in fields.items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True
