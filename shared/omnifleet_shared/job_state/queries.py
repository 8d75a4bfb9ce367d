"""Reads of one job: the Redis command, and how its reply is parsed. The blocking and the asyncio store share them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from ..errors import UnknownJob
from ..keys import (
    ATTEMPTS_KEY,
    CALLBACK_KEY,
    CANCEL_CHANNEL,
    CANCEL_KEY,
    CANCEL_LIFETIME,
    PROGRESS_KEY,
    STREAM_KEY,
)
from ..schema.callback import CallbackDelivery
from ..schema.job_state import STATE_KEY, JobState, read_state, unreadable
from ..schema.parts import StreamedPart
from ..schema.results import Progress, Route
from ..webhooks.outbox import read_delivery

T = TypeVar("T")
# A request that comes again, when the job has been replayed since (`dead_letters.REPLAY`), does not cancel it.
CANCEL = f"""
local cancel, runs = unpack(KEYS)
local job_id, request = unpack(ARGV)
if redis.call('HEXISTS', runs, 'cancelled:' .. request) == 1 then return end
redis.call('DEL', cancel)  -- before what a full Redis would refuse as the first write
redis.call('SET', cancel, 1, 'EX', {CANCEL_LIFETIME})
redis.call('HSET', runs, 'cancelled:' .. request, 1)
if redis.call('TTL', runs) < 0 then redis.call('EXPIRE', runs, {CANCEL_LIFETIME}) end
redis.call('PUBLISH', '{CANCEL_CHANNEL}', job_id)
"""


@dataclass(frozen=True)
class Query(Generic[T]):
    """A Redis command, and the parser of its reply."""

    command: tuple[str, ...]
    read: Callable[[Any], T]
    """Parses the reply. May raise InvalidMessage, and what the function that makes the query names."""


def state_query(job_id: str, lifetime: int) -> Query[JobState]:
    """Query a job's state. `read` raises UnknownJob where there is no record; records live for `lifetime` seconds."""

    def read(stored: bytes | None) -> JobState:
        if stored is None:
            problem = f"no job {job_id[:80]!r} is known here"
            raise UnknownJob(problem, "job_id", f"Records are kept for {lifetime / 86400:g} days")
        return read_state(stored)

    return Query(("GET", STATE_KEY.format(job_id=job_id)), read)


def progress_query(job_id: str) -> Query[Progress]:
    """Query a job's newest progress; all zeros before the first step, and where there is no such job."""

    def read(stored: bytes | None) -> Progress:
        try:
            return Progress.model_validate_json(stored) if stored else Progress()
        except ValidationError as error:
            raise unreadable("progress", stored or b"") from error

    return Query(("GET", PROGRESS_KEY.format(job_id=job_id)), read)


def parts_query(job_id: str, after: int, last: int | None = None) -> Query[list[StreamedPart]]:
    """Query the parts that a job has given out behind number `after`, up to number `last` if there is one; none where
    it is not streamed."""

    def read(stored: list[bytes]) -> list[StreamedPart]:
        try:
            return [StreamedPart.model_validate_json(one) for one in stored]
        except ValidationError as error:
            raise unreadable("part", b"".join(stored)) from error

    return Query(("LRANGE", STREAM_KEY.format(job_id=job_id), str(after), str(-1 if last is None else last - 1)), read)


def callback_query(job_id: str) -> Query[CallbackDelivery | None]:
    """Query the delivery of a job's callback; None before its outcome, or where none was requested."""
    # Not HGETALL, which would bring the body along.
    fields = ("status", "id", "attempts", "error", "at")

    def read(values: list[bytes | None]) -> CallbackDelivery | None:
        return read_delivery({name: value.decode() for name, value in zip(fields, values, strict=True) if value})

    return Query(("HMGET", CALLBACK_KEY.format(job_id=job_id), *fields), read)


def route_query(job_id: str) -> Query[Route | None]:
    """Query where a job was routed to; None where there was no choice, and where there is no such job."""

    def read(stored: bytes | None) -> Route | None:
        try:
            return Route.model_validate_json(stored) if stored else None
        except ValidationError as error:
            raise unreadable("route", stored or b"") from error

    return Query(("HGET", ATTEMPTS_KEY.format(job_id=job_id), "sent:route"), read)


def run_cancel(script: Any, job_id: str) -> Any:
    """Run `CANCEL`, registered with either client, for a new request; gives what the script gives, or its awaitable."""
    keys = [CANCEL_KEY.format(job_id=job_id), ATTEMPTS_KEY.format(job_id=job_id)]
    return script(keys=keys, args=[job_id, uuid.uuid4().hex])
