"""The jobs that each tenant's keys sent, newest first: any replica lists what any of them took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from omnifleet_shared.errors import UnknownJob
from omnifleet_shared.job_state.queries import progress_query, state_query
from omnifleet_shared.keys import API_JOBS_KEY
from omnifleet_shared.redis_client import typed_redis_errors
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.results import Progress
from redis.asyncio import Redis

MOST_LISTED = 10_000
"""Jobs of a tenant that are listed; those before them are found by their ids alone."""
ADD = """
local job, lifetime, most = unpack(ARGV)
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
-- NX: a job that an idempotency key came back to keeps its place.
redis.call('ZADD', KEYS[1], 'NX', now, job)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - lifetime * 1000000)
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -most - 1)
redis.call('EXPIRE', KEYS[1], lifetime)
"""


@dataclass(frozen=True)
class ListedJob:
    """A job as it is found in the list.

    Attributes:
        job_id: its id.
        task: with its namespace, such as `generate.t2a`.
        sent: Unix time in microseconds, which no two jobs of a list share.
        state: where it is now.
        progress: how far it is.
    """

    job_id: str
    task: str
    sent: int
    state: JobState
    progress: Progress


@dataclass(frozen=True)
class JobPage:
    """A part of the list.

    Attributes:
        jobs: the newest first; those whose records are gone are left out.
        next: what to read on after; None where nothing comes after it.
    """

    jobs: Sequence[ListedJob]
    next: int | None


class JobList:
    """Lists jobs by tenant; None is the tenant of gateways without keys. Every method may raise BrokerUnavailable.

    Args:
        redis: a client of this event loop; it stays the caller's to close.
        lifetime: seconds that records of jobs live.
    """

    def __init__(self, redis: Redis, lifetime: int) -> None:
        self._redis = cast(Any, redis)
        self._lifetime = lifetime
        self._add = self._redis.register_script(ADD)

    async def add(self, tenant: str | None, job_id: str, task: str) -> None:
        """Put a job that was just sent on the list of its tenant."""
        with typed_redis_errors():
            await self._add(keys=[_key(tenant)], args=[f"{job_id}:{task}", self._lifetime, MOST_LISTED])

    async def page(self, tenant: str | None, limit: int, after: int | None = None) -> JobPage:
        """Read `limit` jobs of a tenant: the newest, or those behind the place where an earlier page ended."""
        end = "+inf" if after is None else f"({after}"
        with typed_redis_errors():
            found: list[Any] = await self._redis.zrevrangebyscore(
                _key(tenant), end, "-inf", start=0, num=limit + 1, withscores=True
            )
        entries = [(*_member(member), int(score)) for member, score in found]
        shown, more = entries[:limit], len(entries) > limit
        return JobPage(await self._look(shown), shown[-1][2] if more else None)

    async def _look(self, entries: Sequence[tuple[str, str, int]]) -> list[ListedJob]:
        if not entries:
            return []
        queries = [state_query(job_id, self._lifetime) for job_id, _, _ in entries]
        queries_of_progress = [progress_query(job_id) for job_id, _, _ in entries]
        keys = [one.command[1] for one in queries] + [one.command[1] for one in queries_of_progress]
        with typed_redis_errors():
            records = await self._redis.mget(keys)
        states, progress = records[: len(entries)], records[len(entries) :]
        jobs: list[ListedJob] = []
        for number, (job_id, task, sent) in enumerate(entries):
            try:
                state = queries[number].read(states[number])
            except UnknownJob:  # its record is gone sooner than its place
                continue
            jobs.append(ListedJob(job_id, task, sent, state, queries_of_progress[number].read(progress[number])))
        return jobs


def _key(tenant: str | None) -> str:
    return API_JOBS_KEY.format(tenant=tenant or "")


def _member(member: bytes) -> tuple[str, str]:
    job_id, _, task = member.decode().partition(":")
    return job_id, task
