"""Whose a log line is: the job that the thread works for, said by whichever library writes the line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Literal

from omnifleet_shared.observability import tracing as traces

Stage = Literal["receive", "begin", "fetch", "decode", "condition", "steps", "encode", "store", "record"]


@dataclass(frozen=True)
class LogContext:
    """A job in the hands of this thread."""

    job_id: str
    attempt: int = 0
    """0 until the start is counted."""
    stage: Stage = "receive"


_current: ContextVar[LogContext | None] = ContextVar("job", default=None)


def enter_job(job_id: str) -> None:
    """The thread works for this job until `leave_job`."""
    _current.set(LogContext(job_id))


def leave_job() -> None:
    """The thread works for no job any more."""
    _current.set(None)


@contextmanager
def log_job(job_id: str | None) -> Iterator[None]:
    """The thread works for this job, or for none, during the block."""
    token = _current.set(None if job_id is None else LogContext(job_id))
    try:
        yield
    finally:
        _current.reset(token)


def set_attempt(attempt: int) -> None:
    """Which start of the job it is."""
    if (context := _current.get()) is not None:
        _current.set(replace(context, attempt=attempt))


def enter_stage(stage: Stage) -> None:
    """What is done for the job from now on."""
    if (context := _current.get()) is not None:
        _current.set(replace(context, stage=stage))


@contextmanager
def in_stage(stage: Stage) -> Iterator[Any]:
    """What is done for the job during the block, for its log lines and its trace; gives the span, if there is one."""
    before = _current.get()
    enter_stage(stage)
    try:
        with traces.span(stage) as span:
            yield span
    finally:
        _current.set(before)


class JobFields(logging.Filter):
    """Gives every record the worker's name and, while its thread works for a job, the job's fields.

    What a line says of itself is left as it is.

    Args:
        worker: its name.
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
