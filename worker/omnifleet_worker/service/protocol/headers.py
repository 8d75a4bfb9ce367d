"""What a message asks for in Celery's headers and beside its arguments; what this fleet does not do is refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, cast

from kombu.message import Message
from omnifleet_shared.errors import InvalidMessage
from omnifleet_shared.schema.results import Route
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

logger = logging.getLogger(__name__)
FOLLOWERS = {"callbacks": "link", "errbacks": "link_error", "chain": "chain", "chord": "chord"}
"""Fields of the embedded part of a message that name tasks to send afterwards, and Celery's words for them."""
_TIME: TypeAdapter[datetime] = TypeAdapter(datetime)


class MessageHeaders(BaseModel):
    """The headers that Celery's consumer takes on trust."""

    model_config = ConfigDict(extra="ignore", strict=True)

    task: str
    id: str
    shadow: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    eta: str | None = None
    expires: str | None = None
    timelimit: list[float | None] | None = None


def check_message(message: Message) -> None:
    """Refuse a message that this fleet cannot read, or that asks for what it does not do.

    Raises:
        InvalidMessage: it asks for what jobs here do not have; the remedy names what to use instead.
        Exception: it cannot be read; whatever its decoding raises.
    """
    if "task" not in message.headers:
        raise ValueError("it is not a Celery message of protocol 2")
    headers = _headers(message)
    args, kwargs, embedded = message.payload
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError("its body is not [args, kwargs, embed]")
    _refuse_followers(embedded)
    if any(headers.timelimit or ()):
        problem = "Celery's time_limit and soft_time_limit do not end a job, which runs on a thread"
        raise InvalidMessage(problem, "time_limit", "Give the job record a deadline")


def followers(message: Message) -> list[str]:
    """Give the ids of the tasks that a chain or chord was to send after this message: somebody may wait for them."""
    try:
        embedded: Any = cast(Any, message.payload)[2]
        chord = embedded.get("chord")
        signatures = [*(embedded.get("chain") or ()), *([chord] if chord else ())]
        found = [one["options"].get("task_id") for one in signatures]
    except Exception:  # it cannot be read, as whatever its decoding raises says
        return []
    return [one for one in found if isinstance(one, str)]


def seconds_to_eta(message: Message) -> float:
    """Give the seconds until the message may be processed (`countdown`, `eta`); at most 0 where that is now."""
    eta = read_time((message.headers or {}).get("eta"))
    return 0.0 if eta is None else (eta - datetime.now(UTC)).total_seconds()


def read_time(value: Any) -> datetime | None:
    """Read a time of Celery's headers, UTC where it names no zone. Raises ValueError for what is none."""
    if value is None:
        return None
    time = _TIME.validate_python(value)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def read_route(value: Any) -> Route | None:
    """Read the route in a message's header; None where there is none, or none that can be read."""
    if not isinstance(value, str):
        return None
    with suppress(ValidationError):
        return Route.model_validate_json(value)
    logger.warning("the route of a message cannot be read", extra={"action": "route_unreadable"})
    return None


def _headers(message: Message) -> MessageHeaders:
    try:
        headers = MessageHeaders.model_validate(message.headers)
        read_time(headers.eta)
        read_time(headers.expires)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "times"
        raise ValueError(f"its header {where}: {first['msg']}") from error
    return headers


def _refuse_followers(embedded: Any) -> None:
    if not isinstance(embedded, Mapping):
        return
    for field, word in FOLLOWERS.items():
        if embedded.get(field):
            problem = f"a job here sends no other task when it ends ({word})"
            remedy = "Send what follows once the result is there, put the job last in a chain, or use its callback"
            raise InvalidMessage(problem, word, remedy)
