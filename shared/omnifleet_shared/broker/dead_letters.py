"""Jobs that were put aside because workers were lost while they ran them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError
from redis import Redis

from ..errors import InvalidJob, InvalidMessage, UnknownJob
from ..keys import ATTEMPTS_KEY, CANCEL_KEY, DEAD_KEY, SCHEMA_VERSION, WAKE_KEY
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.base import Record, wire_names
from ..schema.job_state import STATE_KEY, queued_record
from ..schema.jobs import Job
from ..settings import FleetSettings
from .submit import HELPERS

# Sent again after a lost connection, it finds no letter and a job that is on its way.
REPLAY = f"""{HELPERS}
local state, runs, wake, place, dead, cancel = unpack(KEYS)
local job_id, message, record, lifetime = unpack(ARGV)
local status = status_of(state)
if redis.call('HEXISTS', dead, job_id) == 0 then
  local on_its_way = status and status ~= 'FAILURE' and status ~= 'REVOKED'
  return on_its_way and 'sent' or 'unknown'
end
if status == 'SUCCESS' then return 'succeeded' end
local unfinished = redis.call('HGET', runs, 'unfinished') or ''
push(place, message, wake, state, record, lifetime)
redis.call('DEL', runs, cancel)
count_unfinished(runs, unfinished, job_id, lifetime)
redis.call('HDEL', dead, job_id)
return 'sent'
"""


class DeadLetter(Record):
    """A job that was put aside, and why."""

    model_config = ConfigDict(alias_generator=wire_names(dead_lettered_at="put_aside_at"))

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    job: Annotated[Job, Field(discriminator="namespace")]
    reason: str
    worker: str
    """Who started it last."""
    attempts: int
    """How often it was started."""
    traceback: str | None = None
    """Of the last attempt that ended with an error; none where every worker was lost without a word."""
    dead_lettered_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class DeadLetters:
    """What was put aside of one queue. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self._redis = redis
        self._key = DEAD_KEY.format(queue=queue)

    @classmethod
    def connect(cls, settings: FleetSettings) -> DeadLetters:
        """Dead letters in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def put(self, letter: DeadLetter) -> None:
        """Keep a job until it is replayed or dropped."""
        with typed_redis_errors():
            self._redis.hset(self._key, letter.job.job_id, letter.model_dump_json())

    def read(self, job_id: str) -> DeadLetter:
        """One job. Raises UnknownJob where it was not put aside."""
        with typed_redis_errors():
            stored = cast(bytes | None, self._redis.hget(self._key, job_id))
        if stored is None:
            raise _not_here(job_id)
        return _letter(stored)

    def all(self) -> list[DeadLetter]:
        """Every job that was put aside, oldest first."""
        with typed_redis_errors():
            stored = cast(list[bytes], self._redis.hvals(self._key))
        return sorted((_letter(one) for one in stored), key=lambda letter: letter.dead_lettered_at)

    def drop(self, job_id: str) -> None:
        """Forget a job. Raises UnknownJob where it was not put aside."""
        with typed_redis_errors():
            dropped = self._redis.hdel(self._key, job_id)
        if not dropped:
            raise _not_here(job_id)


@dataclass(frozen=True)
class Replay:
    """The `Submission` of a job that was put aside: as new, under its own id, and no longer a dead letter."""

    job_id: str
    settings: FleetSettings

    def push(self, redis: Redis, place: str, message: str) -> None:
        """See `Submission`.

        Raises:
            UnknownJob: it is not put aside any more.
            InvalidJob: it has succeeded since.
        """
        args = [self.job_id, message, queued_record(self.job_id), self.settings.result_lifetime]
        verdict = cast(Any, redis.register_script(REPLAY))(keys=self._keys(place), args=args)
        if verdict == b"unknown":
            raise _not_here(self.job_id)
        if verdict == b"succeeded":
            raise InvalidJob("it has succeeded since it was put aside", "job_id", "Drop it instead")

    def _keys(self, place: str) -> list[str]:
        job_id, queue = self.job_id, self.settings.queue
        return [
            STATE_KEY.format(job_id=job_id),
            ATTEMPTS_KEY.format(job_id=job_id),
            WAKE_KEY.format(queue=queue),
            place,
            DEAD_KEY.format(queue=queue),
            CANCEL_KEY.format(job_id=job_id),
        ]


def _not_here(job_id: str) -> UnknownJob:
    return UnknownJob(f"no job {job_id[:80]!r} was put aside", "job_id", "`omnifleet dead list` shows them")


def _letter(stored: bytes) -> DeadLetter:
    try:
        return DeadLetter.model_validate_json(stored)
    except ValidationError as error:
        details = {"payload": stored[:500].decode("utf-8", "replace")}
        raise InvalidMessage("the dead letter is no record", "job_id", "Upgrade this side", details) from error
