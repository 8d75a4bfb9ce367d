"""Questions about one job: the Redis command that asks, and how its reply is read. Blocking and asyncio share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from ..errors import UnknownJob
from ..keys import CALLBACK_KEY, CANCEL_CHANNEL, CANCEL_KEY, CANCEL_LIFETIME, PROGRESS_KEY
from ..schema.callback import CallbackDelivery
from ..schema.job_state import STATE_KEY, JobState, read_state, unreadable
from ..schema.results import Progress
from ..webhooks.outbox import read_delivery

T = TypeVar("T")


@dataclass(frozen=True)
class Query(Generic[T]):
    """One question."""

    command: tuple[str, ...]
    read: Callable[[Any], T]
    """From the reply to what it says. May raise InvalidMessage, and what the question says of itself."""


def state_query(job_id: str, lifetime: int) -> Query[JobState]:
    """The job's state. Reading raises UnknownJob where there is no record; records live for `lifetime` seconds."""

    def read(stored: bytes | None) -> JobState:
        if stored is None:
            problem = f"no job {job_id[:80]!r} is known here"
            raise UnknownJob(problem, "job_id", f"Records are kept for {lifetime / 86400:g} days")
        return read_state(stored)

    return Query(("GET", STATE_KEY.format(job_id=job_id)), read)


def progress_query(job_id: str) -> Query[Progress]:
    """The job's newest progress; all zeros before the first step, and where there is no such job."""

    def read(stored: bytes | None) -> Progress:
        try:
            return Progress.model_validate_json(stored) if stored else Progress()
        except ValidationError as error:
            raise unreadable("progress", stored or b"") from error

    return Query(("GET", PROGRESS_KEY.format(job_id=job_id)), read)


def callback_query(job_id: str) -> Query[CallbackDelivery | None]:
    """How the job's callback stands; None before its outcome, or where none was asked for."""
    # Not HGETALL, which would bring the body along.
    fields = ("status", "id", "attempts", "error", "at")

    def read(values: list[bytes | None]) -> CallbackDelivery | None:
        return read_delivery({name: value.decode() for name, value in zip(fields, values, strict=True) if value})

    return Query(("HMGET", CALLBACK_KEY.format(job_id=job_id), *fields), read)


def add_cancel_request(pipe: Any, job_id: str) -> None:
    """Add to a transaction, of either client, what asks the worker that has the job, or will have it, to stop."""
    pipe.set(CANCEL_KEY.format(job_id=job_id), b"1", ex=CANCEL_LIFETIME)
    pipe.publish(CANCEL_CHANNEL, job_id)
