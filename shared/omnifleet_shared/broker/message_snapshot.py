"""All messages of all queues at one moment, dead letters included.

A message moves from a list to its lease and back, so that whoever reads one place after the other may miss it. Here
Redis copies all places in one script (some milliseconds, and for a while the memory of all messages once more),
and the copies are read piece by piece.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, cast

from redis import Redis

from ..errors import BrokerUnavailable, InvalidMessage
from ..keys import (
    ANSWERS_QUEUE,
    BINDINGS,
    DEAD_KEY,
    FAIR_LANE_KEY,
    INPUTS_UNTIL,
    LEASED_KEY,
    SNAPSHOT_KEY,
    SNAPSHOT_LIFETIME,
    SUSPECTS_KEY,
)
from ..redis_client import typed_redis_errors
from .submit import all_lists
from .tenants.fair_queue import LANES

PIECE = 500
"""Messages that are read at a time."""
OF_OTHERS = (FAIR_LANE_KEY.format(place=""), ANSWERS_QUEUE.format(queue=""))
"""Beginnings of the names of queues that are part of another: those of tenants, and of answers."""
# Which lists of tenants there are is found out at the moment of the copy: a message may have been moved to a new one.
COPY = f"""{LANES}
local copies = {{}}
local function copy(place)
  local to = ARGV[1] .. place
  if redis.call('COPY', place, to) == 0 then return end
  redis.call('EXPIRE', to, {SNAPSHOT_LIFETIME})
  copies[#copies + 1] = to
end
for _, place in ipairs(KEYS) do
  copy(place)
  for _, tenant in ipairs(redis.call('ZRANGE', fair(place, ':waiting'), 0, -1)) do copy(jobs_of(place, tenant)) end
end
return copies
"""


@dataclass(frozen=True)
class QueuedMessage:
    """A message that has no outcome yet, or a dead letter."""

    job_id: str
    content: object
    """The message's arguments, or the dead letter's record, as decoded JSON."""
    inputs_until: datetime | None
    """Time until which the job needs its inputs; None where the message does not tell, and of a dead letter."""


class MessageSnapshot:
    """Copies all places of all queues, and reads the copies. Close it.

    Args:
        redis: client of the fleet's Redis.
        queues: names of its queues; all of them by default.

    Raises, as its methods do:
        BrokerUnavailable: Redis does not answer, or has no memory for the copies.
    """

    def __init__(self, redis: Redis, queues: Sequence[str] | None = None) -> None:
        self._redis = cast(Any, redis)
        self.queues = queue_names(redis) if queues is None else queues
        """All queues in this Redis that jobs were ever sent to, by default."""
        prefix, places = SNAPSHOT_KEY.format(token=uuid.uuid4().hex, place=""), map(_places, self.queues)
        with typed_redis_errors():
            copies = self._redis.register_script(COPY)(keys=list(chain.from_iterable(places)), args=[prefix])
        self._copies = [one.decode() for one in copies]

    def close(self) -> None:
        """Delete the copies."""
        if self._copies:
            with typed_redis_errors():
                self._redis.unlink(*self._copies)

    def messages(self) -> Iterator[QueuedMessage]:
        """Read all messages. Raises InvalidMessage for one that cannot be read."""
        for copy in self._copies:
            for stored in self._read(copy):
                yield read_message(stored)
        self._check_copies()

    def job_ids(self) -> Iterator[str]:
        """Read the job id of each message; what is no message has none."""
        for copy in self._copies:
            for stored in self._read(copy):
                with suppress(InvalidMessage):
                    yield read_message(stored).job_id
        self._check_copies()

    def _check_copies(self) -> None:
        with typed_redis_errors():
            left = self._redis.exists(*self._copies) if self._copies else 0
        if left < len(self._copies):
            raise BrokerUnavailable("the copies of the messages expired while they were read", "redis_url", "Try again")

    def _read(self, copy: str) -> Iterator[bytes]:
        with typed_redis_errors():
            if self._redis.type(copy) == b"hash":
                yield from (value for _, value in self._redis.hscan_iter(copy, count=PIECE))
                return
            for start in range(0, self._redis.llen(copy), PIECE):
                yield from self._redis.lrange(copy, start, start + PIECE - 1)


def queue_names(redis: Redis) -> list[str]:
    """Name all queues in this Redis that jobs were ever sent to. Raises BrokerUnavailable."""
    known = cast(Any, redis)
    with typed_redis_errors():
        exchanges = [key.decode().removeprefix(BINDINGS) for key in known.scan_iter(f"{BINDINGS}*", PIECE)]
        bound = {name: known.smembers(BINDINGS + name) for name in exchanges}
    # The queues of Celery's own answers and events have exchanges of other names.
    return sorted(
        name
        for name, queues in bound.items()
        if not name.startswith(OF_OTHERS) and any(_queue_of(queue) == name for queue in queues)
    )


def _places(queue: str) -> list[str]:
    """Name everything in Redis that holds a queue's messages, but for the lists of tenants."""
    return [*all_lists(queue), *(key.format(queue=queue) for key in (LEASED_KEY, SUSPECTS_KEY, DEAD_KEY))]


def _queue_of(binding: bytes) -> str:
    """Read the queue's name in a binding: routing key, pattern and queue, as kombu joins them."""
    return binding.decode().rpartition("\x06\x16")[2]


def read_message(stored: bytes) -> QueuedMessage:
    """Read a message as some place holds it. Raises InvalidMessage."""
    # Messages under lease, and suspects, have the names of their lists before them, one a line.
    text = stored.rpartition(b"\n")[2]
    try:
        record = json.loads(text)
        if "body" not in record:
            return QueuedMessage(str(record["job"]["job_id"]), record, None)
        headers = record["headers"]
        until = headers.get(INPUTS_UNTIL)
        content = json.loads(base64.b64decode(record["body"]))
        return QueuedMessage(str(headers["id"]), content, None if until is None else datetime.fromisoformat(until))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        details = {"payload": stored[:500].decode("utf-8", "replace")}
        raise InvalidMessage("a message in Redis cannot be read", "redis_url", "Upgrade this side", details) from error
