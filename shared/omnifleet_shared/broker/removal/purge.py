"""Purges a queue (`celery purge`): every job that waits in it is cancelled, so that whoever waits for one is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from redis import Redis

from ...errors import InvalidMessage, JobCancelled
from ...keys import SUSPECTS_KEY
from ...redis_client import typed_redis_errors
from ..attempts import Attempts
from ..leases import LeasedMessage, Leases
from ..message_snapshot import read_message
from ..submit import all_lists, fair_lanes

LEASE_SECONDS = 60.0
"""Lease of a message that is being cancelled; it is back in the queue then, where the purge was killed meanwhile."""


class Purge:
    """Cancels the jobs that wait in one queue. Those that run, or wait for a retry, go on.

    Args:
        redis: client of the fleet's Redis.
        queue: name of the queue.
        lifetime: seconds that records are kept.
    """

    def __init__(self, redis: Redis, queue: str, lifetime: int) -> None:
        self._redis = redis
        self._queue = queue
        self._leases = Leases(redis, queue, LEASE_SECONDS)
        self._attempts = Attempts(redis, queue, lifetime, "purge")

    def run(self) -> int:
        """Cancel as many jobs as wait now; gives how many it was. Raises BrokerUnavailable."""
        lists = all_lists(self._queue)
        with typed_redis_errors():
            waiting = sum(cast(int, self._redis.llen(key)) for key in (*lists, SUSPECTS_KEY.format(queue=self._queue)))
            waiting += sum(int(cast(Any, self._redis).hget(key, "jobs") or 0) for key in fair_lanes(self._queue))
        for done in range(waiting):
            taken = self._leases.take(lists)
            if taken is None:
                return done
            self._cancel(taken)
        return waiting

    def _cancel(self, taken: LeasedMessage) -> None:
        # Under a lease, as a worker does it: callback, counts and idempotency key follow from the outcome.
        try:
            message = read_message(taken.message)
        except InvalidMessage:
            pass  # nobody can wait for it
        else:
            problem = "the queue was purged while the job waited in it"
            error = JobCancelled(problem, None, "Send it again if it is wanted")
            self._attempts.fail(message.job_id, error, taken.tag, _callback(message.content))
        self._leases.ack(taken.tag)


def _callback(content: Any) -> str | None:
    """Find the URL in a message's arguments. Workers look at their allow list before they post to it."""
    try:
        job = content[1]["job"]
    except (IndexError, KeyError, TypeError):
        return None
    url = job.get("callback") if isinstance(job, Mapping) else None
    return url if isinstance(url, str) else None
