"""Jobs whose messages were taken away by other means than omnifleet's (`DEL`, a flushed queue): found, and told.

A job is lost where its record says that it waits or runs, and no place in Redis holds its message. Records are read
first, then all messages at one moment, and what is written afterwards counts only where the record still says so: a
job and its message come, move and end together, so that none is taken for lost in between.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from typing import Any, cast

from redis import Redis

from ...errors import MessageLost
from ...keys import ATTEMPTS_KEY, LEASED_KEY, QUEUED, RECONCILED_KEY, SUSPECTS_KEY
from ...redis_client import connect_redis, typed_redis_errors
from ...schema.job_state import STATE_KEY, failure_record
from ...settings import FleetSettings
from ..message_snapshot import MessageSnapshot, queue_names
from ..submit import all_lists, fair_lanes

SCAN_AT_ONCE = 1000
"""Keys that one script looks at."""
# STARTED and RETRY are words of every Celery app; only omnifleet's jobs have attempts. Most records begin with their
# status, which spares reading the whole result.
IS_OPEN = f"""
local function is_open(state, runs)
  local status = string.match(redis.call('GETRANGE', state, 0, 40), '^{{"status": ?"(%u+)"')
  if not status then
    local known, record = pcall(cjson.decode, redis.call('GET', state))
    status = known and type(record) == 'table' and record.status
  end
  if status == '{QUEUED}' then return true end
  return (status == 'STARTED' or status == 'RETRY') and redis.call('EXISTS', runs) == 1
end
"""
SCAN_OPEN = f"""{IS_OPEN}
local prefix, runs = '{STATE_KEY.format(job_id="")}', '{ATTEMPTS_KEY.format(job_id="")}'
local reply = redis.call('SCAN', ARGV[1], 'MATCH', prefix .. '*', 'COUNT', {SCAN_AT_ONCE})
local open = {{}}
for _, state in ipairs(reply[2]) do
  local job_id = string.sub(state, #prefix + 1)
  if redis.call('TYPE', state).ok == 'string' and is_open(state, runs .. job_id) then open[#open + 1] = job_id end
end
return {{reply[1], open}}
"""
RECORD_LOST = f"""{IS_OPEN}
local state, runs = unpack(KEYS)
local job_id, record, lifetime = unpack(ARGV)
if redis.call('EXISTS', state) == 0 or not is_open(state, runs) then return 0 end
redis.call('SET', state, record, 'EX', lifetime)
redis.call('PUBLISH', state, record)
local counted = redis.call('HGET', runs, 'unfinished')
if counted then redis.call('ZREM', counted, job_id) end
return 1
"""


class LostMessages:
    """Compares the records of jobs with the messages of all queues. Every method may raise BrokerUnavailable.

    Args:
        redis: client of the fleet's Redis.
        queue: name of the queue whose workers ask, which is counted even where Redis forgot that there is one.
        lifetime: seconds that records are kept.
    """

    def __init__(self, redis: Redis, queue: str, lifetime: int) -> None:
        self._redis = redis
        self._queue = queue
        self._lifetime = lifetime
        self._scan, self._record = (cast(Any, redis.register_script(one)) for one in (SCAN_OPEN, RECORD_LOST))

    @classmethod
    def connect(cls, settings: FleetSettings) -> LostMessages:
        """Compare in the Redis of these settings."""
        return cls(connect_redis(settings), settings.queue, settings.result_lifetime)

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def find(self) -> set[str]:
        """Give the ids of the jobs whose messages are gone. All records are looked at, a thousand a round trip."""
        unfinished = self._open_jobs()
        queues = sorted({self._queue, *queue_names(self._redis)})
        # Messages are copied and read only where there are too few of them.
        if len(unfinished) <= self._count(queues):
            return set()
        with closing(MessageSnapshot(self._redis, queues)) as snapshot:
            return unfinished - set(snapshot.job_ids())

    def tell(self, job_ids: Collection[str]) -> int:
        """Record for jobs that `find` gave that they are lost, and tell those who wait; gives how many still were."""
        error = MessageLost("its message was taken out of the queue by somebody else", None, "Send the job again")
        told = 0
        for job_id in job_ids:
            keys = [STATE_KEY.format(job_id=job_id), ATTEMPTS_KEY.format(job_id=job_id)]
            with typed_redis_errors():
                told += self._record(keys=keys, args=[job_id, failure_record(job_id, error), self._lifetime])
        return told

    def is_due(self, interval: float) -> bool:
        """Whether a comparison is due in this fleet; true for one caller within so many seconds."""
        key = RECONCILED_KEY.format(queue=self._queue)
        with typed_redis_errors():
            return bool(self._redis.set(key, 1, px=int(interval * 1000), nx=True))

    def _count(self, queues: Sequence[str]) -> int:
        with typed_redis_errors(), self._redis.pipeline() as pipe:
            for queue in queues:
                for place in (*all_lists(queue), SUSPECTS_KEY.format(queue=queue)):
                    pipe.llen(place)
                for lane in fair_lanes(queue):
                    pipe.hget(lane, "jobs")
                pipe.hlen(LEASED_KEY.format(queue=queue))
            return sum(int(count or 0) for count in pipe.execute())

    def _open_jobs(self) -> set[str]:
        cursor, found = b"0", set[str]()
        while True:
            with typed_redis_errors():
                cursor, job_ids = self._scan(keys=[], args=[cursor])
            found.update(one.decode() for one in job_ids)
            if cursor == b"0":
                return found
