"""Dead letters: jobs that are kept apart because worker after worker was lost while running them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from pydantic import AwareDatetime, ConfigDict, Field, ValidationError
from redis import Redis

from ..catalogue import fleet_queues
from ..errors import InvalidJob, InvalidMessage, UnknownJob
from ..keys import ATTEMPTS_KEY, CANCEL_KEY, CANCEL_LIFETIME, DEAD_KEY, OPEN_LIFETIME, SCHEMA_VERSION, WAKE_KEY
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.base import Record, wire_names
from ..schema.job_state import STATE_KEY, queued_record
from ..schema.jobs import Job
from ..settings import FleetSettings
from .submit import HELPERS
from .worker_registry import reported_queues

REMEMBER = f"""
local function remember(runs, field, answer)
  redis.call('HSET', runs, field, answer)
  if redis.call('TTL', runs) < 0 then redis.call('EXPIRE', runs, {CANCEL_LIFETIME}) end
  return answer
end
"""
# The job's attempts begin anew, but for what they remember of calls (`keys.ATTEMPTS_KEY`): one that comes again may be
# of the time before the replay.
REPLAY = f"""{HELPERS}{REMEMBER}
local state, runs, wake, place, dead, cancel = unpack(KEYS)
local job_id, message, record, lifetime, call = unpack(ARGV)
lifetime = math.max(tonumber(lifetime), {OPEN_LIFETIME})
local replayed = 'replayed:' .. call
local before = redis.call('HGET', runs, replayed)
if before then return before end
local status = status_of(state)
if redis.call('HEXISTS', dead, job_id) == 0 then
  local is_queued = status and status ~= 'FAILURE' and status ~= 'REVOKED'
  return remember(runs, replayed, is_queued and 'sent' or 'unknown')
end
if status == 'SUCCESS' then return remember(runs, replayed, 'succeeded') end
local unfinished = redis.call('HGET', runs, 'unfinished') or ''
push(place, message, wake, state, record, lifetime)
for _, field in ipairs(redis.call('HKEYS', runs)) do
  if not string.find(field, ':', 1, true) then redis.call('HDEL', runs, field) end
end
redis.call('DEL', cancel)
count_unfinished(runs, unfinished, job_id, lifetime)
redis.call('HDEL', dead, job_id)
return remember(runs, replayed, 'sent')
"""
DROP = f"""{REMEMBER}
local dead, runs = unpack(KEYS)
local job_id, call = unpack(ARGV)
local before = redis.call('HGET', runs, 'dropped:' .. call)
if before then return before end
return remember(runs, 'dropped:' .. call, redis.call('HDEL', dead, job_id) == 1 and 'dropped' or 'unknown')
"""


class DeadLetter(Record):
    """A job that was dead-lettered, and why."""

    model_config = ConfigDict(alias_generator=wire_names(dead_lettered_at="put_aside_at"))

    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    job: Annotated[Job, Field(discriminator="namespace")]
    reason: str
    worker: str
    """Name of the worker that started it last."""
    attempts: int
    """Times that it was started."""
    traceback: str | None = None
    """Of the last attempt that ended with an error; None where every worker was lost without one."""
    dead_lettered_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))


class DeadLetters:
    """The dead letters of some queues, which `Attempts.fail` writes. Every method may raise BrokerUnavailable."""

    def __init__(self, redis: Redis, *queues: str) -> None:
        self._redis = redis
        self._keys = {queue: DEAD_KEY.format(queue=queue) for queue in queues}
        self._drop = cast(Any, redis.register_script(DROP))

    @classmethod
    def connect(cls, settings: FleetSettings) -> DeadLetters:
        """Open the dead letters of all the fleet's models in the Redis of these settings."""
        redis = connect_redis(settings)
        return cls(redis, *fleet_queues(settings, reported_queues(redis)))

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def read(self, job_id: str) -> DeadLetter:
        """Read one dead letter. Raises UnknownJob where the job has none."""
        return self._find(job_id)[1]

    def queue_of(self, job_id: str) -> str:
        """Name the queue that the job was in. Raises UnknownJob where the job has no dead letter."""
        return self._find(job_id)[0]

    def all(self) -> list[DeadLetter]:
        """Read all dead letters, oldest first."""
        with typed_redis_errors():
            stored = [one for key in self._keys.values() for one in cast(list[bytes], self._redis.hvals(key))]
        return sorted((_letter(one) for one in stored), key=lambda letter: letter.dead_lettered_at)

    def drop(self, job_id: str) -> None:
        """Delete a dead letter. Raises UnknownJob where the job has none."""
        with typed_redis_errors():
            keys = [self._keys[self.queue_of(job_id)], ATTEMPTS_KEY.format(job_id=job_id)]
            verdict = self._drop(keys=keys, args=[job_id, uuid.uuid4().hex])
        if verdict == b"unknown":
            raise _not_here(job_id)

    def _find(self, job_id: str) -> tuple[str, DeadLetter]:
        for queue, key in self._keys.items():
            with typed_redis_errors():
                stored = cast(bytes | None, self._redis.hget(key, job_id))
            if stored is not None:
                return queue, _letter(stored)
        raise _not_here(job_id)


@dataclass(frozen=True)
class Replay:
    """A `Submission` that queues a dead-lettered job as new, under its own id, and deletes the dead letter."""

    job_id: str
    settings: FleetSettings
    queue: str
    call: str = field(default_factory=lambda: uuid.uuid4().hex)

    def push(self, redis: Redis, list_key: str, message: str) -> None:
        """See `Submission`.

        Raises:
            UnknownJob: the job has no dead letter any more.
            InvalidJob: the job has succeeded since.
        """
        args = [self.job_id, message, queued_record(self.job_id), self.settings.result_lifetime, self.call]
        verdict = cast(Any, redis.register_script(REPLAY))(keys=self._keys(list_key), args=args)
        if verdict == b"unknown":
            raise _not_here(self.job_id)
        if verdict == b"succeeded":
            raise InvalidJob("it has succeeded since it was dead-lettered", "job_id", "Drop it instead")

    def _keys(self, list_key: str) -> list[str]:
        job_id, queue = self.job_id, self.queue
        return [
            STATE_KEY.format(job_id=job_id),
            ATTEMPTS_KEY.format(job_id=job_id),
            WAKE_KEY.format(queue=queue),
            list_key,
            DEAD_KEY.format(queue=queue),
            CANCEL_KEY.format(job_id=job_id),
        ]


def _not_here(job_id: str) -> UnknownJob:
    return UnknownJob(f"there is no dead letter of job {job_id[:80]!r}", "job_id", "`omnifleet dead list` shows them")


def _letter(stored: bytes) -> DeadLetter:
    try:
        return DeadLetter.model_validate_json(stored)
    except ValidationError as error:
        details = {"payload": stored[:500].decode("utf-8", "replace")}
        raise InvalidMessage("the dead letter is no record", "job_id", "Upgrade this side", details) from error
