"""Parts of streamed jobs as workers give them out: each once, in order, and only while the worker holds the lease."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from redis import Redis

from ..errors import EngineStopped
from ..job_state.queries import parts_query
from ..keys import LEASED_KEY, STREAM_KEY
from ..redis_client import connect_redis, typed_redis_errors
from ..schema.parts import StreamedPart
from ..settings import FleetSettings

# A part that was given out stays as it is: whoever commits its number again, after a lost answer or in a later attempt,
# is told what it is. KEYS: leased messages, the job's parts. ARGV: tag, number, record, lifetime in seconds.
COMMIT = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'lost'} end
local number, length = tonumber(ARGV[2]), redis.call('LLEN', KEYS[2])
if number <= length then return {'written', redis.call('LINDEX', KEYS[2], number - 1)} end
if number > length + 1 then return {'missing'} end
redis.call('EXPIRE', KEYS[2], ARGV[4])  -- before what a full Redis would refuse as the first write
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {'written', ARGV[3]}
"""


class PartCommits:
    """Gives out the parts of the jobs of one queue. Every method may raise BrokerUnavailable.

    Args:
        redis: client of the fleet's Redis.
        queue: name of the queue that the jobs come from.
        lifetime: seconds that parts are kept after the last one of their job.
    """

    def __init__(self, redis: Redis, queue: str, lifetime: int) -> None:
        self._redis = redis
        self._queue = queue
        self._lifetime = lifetime
        self._commit = cast(Any, redis.register_script(COMMIT))

    @classmethod
    def connect(cls, settings: FleetSettings) -> PartCommits:
        """Give parts out through the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue, settings.result_lifetime)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def commit(self, job_id: str, tag: str, part: StreamedPart) -> StreamedPart:
        """Give out a part, unless there is one of its number; gives the one that counts.

        Args:
            job_id: of the job.
            tag: of the lease of the job's message.
            part: its number is at most one more than that of the last one.

        Raises:
            EngineStopped: the lease is lost, and another worker has the job; or parts before this one have vanished.
        """
        keys = [LEASED_KEY.format(queue=self._queue), STREAM_KEY.format(job_id=job_id)]
        with typed_redis_errors():
            verdict, *kept = self._commit(keys=keys, args=[tag, part.number, part.model_dump_json(), self._lifetime])
        if not kept:
            lost = verdict == b"lost"
            raise EngineStopped("the lease was lost" if lost else "parts that were given out have vanished from Redis")
        return StreamedPart.model_validate_json(kept[0])

    def read(self, job_id: str) -> Sequence[StreamedPart]:
        """Read all parts that were given out, those of earlier attempts."""
        query = parts_query(job_id, after=0)
        with typed_redis_errors():
            reply = cast(Any, self._redis).execute_command(*query.command)
        return query.read(reply)
