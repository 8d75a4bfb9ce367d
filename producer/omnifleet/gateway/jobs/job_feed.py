"""Follows any number of jobs at once, with a few reads of Redis an interval however many streams are open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, cast

from omnifleet_shared.errors import BrokerUnavailable, OmnifleetError
from omnifleet_shared.job_state.queries import Query, parts_query, progress_query, state_query
from omnifleet_shared.redis_client import typed_redis_errors
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import JobStatus, Progress
from redis.asyncio import Redis

logger = logging.getLogger(__name__)
INTERVAL = 0.25
"""Seconds between two looks at a job; workers publish progress as often."""
READ_AT_ONCE = 250
"""Jobs that one command reads: more would hold up the event loop."""


@dataclass(frozen=True)
class Look:
    """What was seen of a job at one moment."""

    state: JobState
    progress: Progress
    parts: tuple[StreamedPart, ...] = ()
    """All that the job has given out, from the first one on."""


@dataclass
class _Followed:
    """A job that somebody follows, and what was read of it last."""

    records: tuple[bytes | None, bytes | None] | None = None
    look: Look | None = None
    followers: set[asyncio.Event] = field(default_factory=set[asyncio.Event])


class JobFeed:
    """Gives the changes of jobs in one event loop.

    Args:
        redis: a client of this event loop; it stays the caller's to close.
        lifetime: seconds that records of jobs live.
    """

    def __init__(self, redis: Redis, lifetime: int) -> None:
        self._redis = cast(Any, redis)
        self._lifetime = lifetime
        self._jobs: dict[str, _Followed] = {}
        self._unread: set[str] = set()
        self._joined = asyncio.Event()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    async def changes(self, job_id: str) -> AsyncGenerator[Look]:
        """Give what is seen of a job now and at each change, until it has its outcome or the feed is stopped."""
        followed = self._jobs.setdefault(job_id, _Followed())
        changed = asyncio.Event()
        followed.followers.add(changed)
        if followed.look is None:
            self._unread.add(job_id)
            self._joined.set()
        else:
            changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="omnifleet-feed")
        try:
            while not self._stopped:
                await changed.wait()
                changed.clear()
                if followed.look is not None and not self._stopped:
                    yield followed.look
                    if followed.look.state.status.is_final:
                        return
        finally:
            followed.followers.discard(changed)
            if not followed.followers and self._jobs.get(job_id) is followed:
                del self._jobs[job_id]

    async def part(self, job_id: str, number: int) -> StreamedPart | None:
        """Read one part of a job; None where it is not there. Raises BrokerUnavailable."""
        query = parts_query(job_id, number - 1, number)
        with typed_redis_errors():
            reply = await self._redis.execute_command(*query.command)
        return next(iter(query.read(reply)), None)

    def stop(self) -> None:
        """End all that follow, as after an outcome; nothing more is given."""
        self._stopped = True
        for followed in self._jobs.values():
            for changed in followed.followers:
                changed.set()

    async def close(self) -> None:
        """Stop, and end the reading."""
        self.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while self._jobs and not self._stopped:
            # Those that have just joined at once; all of them when it is time.
            all_of_them = loop.time() >= due
            job_ids = list(self._jobs if all_of_them else self._unread & self._jobs.keys())
            self._unread.clear()
            self._joined.clear()
            if all_of_them:
                due = loop.time() + INTERVAL
            try:
                await self._look(job_ids)
            except BrokerUnavailable as error:
                logger.debug("jobs go unseen: %s", error, extra={"action": "feed_unreachable"})
                self._unread.update(job_ids)
                await asyncio.sleep(INTERVAL)
                continue
            except Exception:
                logger.exception("looking at jobs failed, and goes on", extra={"action": "feed_failed"})
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._joined.wait()

    async def _look(self, job_ids: list[str]) -> None:
        for start in range(0, len(job_ids), READ_AT_ONCE):
            some = job_ids[start : start + READ_AT_ONCE]
            queries = [state_query(one, self._lifetime).command[1] for one in some]
            queries += [progress_query(one).command[1] for one in some]
            with typed_redis_errors():
                found: list[bytes | None] = await self._redis.mget(queries)
            looks: dict[str, Look] = {}
            for job_id, *records in zip(some, found, found[len(some) :], strict=False):
                looks |= self._parse(job_id, (records[0], records[1]))
            for job_id, look in (looks | await self._with_parts(looks)).items():
                self._notice(job_id, look)

    def _parse(self, job_id: str, records: tuple[bytes | None, bytes | None]) -> dict[str, Look]:
        """The job as the records have it, with the parts that were read before; nothing where nobody follows it."""
        followed = self._jobs.get(job_id)
        if followed is None:
            return {}
        if followed.look is not None and followed.records == records:
            return {job_id: followed.look}
        followed.records = records
        parts = () if followed.look is None else followed.look.parts
        try:
            state = state_query(job_id, self._lifetime).read(records[0])
            return {job_id: Look(state, progress_query(job_id).read(records[1]), parts)}
        except OmnifleetError as error:  # forgotten meanwhile, or not to be read: nothing better will come
            return {job_id: _failed(error, parts)}

    async def _with_parts(self, looks: Mapping[str, Look]) -> dict[str, Look]:
        """The jobs that were started, with what they have given out since; read after their states, as those that have
        ended give out no more."""
        started = {job_id: look for job_id, look in looks.items() if look.state.status is not JobStatus.QUEUED}
        if not started:
            return {}
        queries = {job_id: parts_query(job_id, len(look.parts)) for job_id, look in started.items()}
        pipeline = self._redis.pipeline(transaction=False)
        for query in queries.values():
            pipeline.execute_command(*query.command)
        with typed_redis_errors():
            found = await pipeline.execute()
        replies = zip(queries.items(), found, strict=True)
        return {job_id: _with_more(looks[job_id], query, reply) for (job_id, query), reply in replies}

    def _notice(self, job_id: str, look: Look) -> None:
        followed = self._jobs.get(job_id)
        if followed is not None and followed.look != look:
            followed.look = look
            _wake(followed.followers)


def _with_more(look: Look, query: Query[list[StreamedPart]], reply: Any) -> Look:
    try:
        more = query.read(reply)
    except OmnifleetError as error:
        return _failed(error, look.parts)
    return replace(look, parts=(*look.parts, *more)) if more else look


def _failed(error: OmnifleetError, parts: tuple[StreamedPart, ...]) -> Look:
    return Look(JobState(status=JobStatus.FAILED, error=error), Progress(), parts)


def _wake(followers: Iterable[asyncio.Event]) -> None:
    for changed in followers:
        changed.set()
