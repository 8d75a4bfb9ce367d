"""The logic of waiting for outcomes, shared by the blocking and the asyncio waiter. It does no input or output.

Each new state of a job is published on a channel that is named like the state's key. What is published before Redis has
confirmed a subscription, or while a connection is lost, goes unheard. So a state is read when somebody starts to wait
for it, when its subscription is confirmed, and again every second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..schema.job_state import STATE_KEY

POLL_INTERVAL = 1.0
"""Seconds after which states are read although nothing was published: a message may be lost with its connection."""
READ_AT_ONCE = 500
"""Most jobs in one command."""


class WatchedJobs:
    """Tracks which jobs are waited for, which channels that needs, and whose states are to be read next.

    Args:
        poll_limit: jobs that one poll reads, the others following in their turn; None reads all at every poll.
    """

    def __init__(self, poll_limit: int | None = None) -> None:
        self._poll_limit = poll_limit
        self._jobs: dict[str, None] = {}
        self._to_subscribe: set[str] = set()
        self._to_unsubscribe: set[str] = set()
        self._unread: set[str] = set()
        self._round: list[str] = []
        self._poll_at = 0.0

    @property
    def has_unread(self) -> bool:
        """Whether the state of some job is to be read."""
        return bool(self._unread)

    def add(self, job_ids: Iterable[str], *, read_at: float | None = None) -> None:
        """Wait for these jobs; the states of those that are waited for already are read once more.

        Args:
            job_ids: of the jobs.
            read_at: when the caller has read their states, by its monotonic clock: they are read again once their
                subscriptions are confirmed.
        """
        if read_at is not None and not self._jobs:
            self._poll_at = read_at + POLL_INTERVAL
        for job_id in job_ids:
            if job_id not in self._jobs:
                self._jobs[job_id] = None
                _move(job_id, self._to_unsubscribe, self._to_subscribe)
            if read_at is None:
                self._unread.add(job_id)

    def discard(self, job_ids: Iterable[str]) -> None:
        """Stop waiting for these jobs."""
        for job_id in job_ids:
            if job_id in self._jobs:
                del self._jobs[job_id]
                _move(job_id, self._to_subscribe, self._to_unsubscribe)
            self._unread.discard(job_id)

    def resubscribe(self) -> None:
        """Ask for all subscriptions again: the connection is a new one."""
        self._to_subscribe, self._to_unsubscribe = set(self._jobs), set()

    def take_subscriptions(self) -> tuple[list[str], list[str]]:
        """Give the channels to subscribe to and those to unsubscribe from since the last call."""
        joined, left = self._to_subscribe, self._to_unsubscribe
        self._to_subscribe, self._to_unsubscribe = set(), set()
        return [*map(channel_of, joined)], [*map(channel_of, left)]

    def hear(self, message: Mapping[str, Any]) -> tuple[str, bytes] | None:
        """Give job id and record of a published state; None for any other message, and for jobs not waited for."""
        job_id = message["channel"].decode().removeprefix(channel_of(""))
        if job_id not in self._jobs:
            return None
        if message["type"] == "subscribe":
            self._unread.add(job_id)
        return (job_id, message["data"]) if message["type"] == "message" else None

    def poll(self, now: float) -> None:
        """Have states read again if a poll is due at `now`, a time of the caller's monotonic clock."""
        if now < self._poll_at:
            return
        self._poll_at = now + POLL_INTERVAL
        if not self._round:
            self._round = list(self._jobs)
        some = self._round[: self._poll_limit]
        del self._round[: len(some)]
        self._unread.update(job_id for job_id in some if job_id in self._jobs)

    def seconds_to_poll(self, now: float) -> float:
        """Give the seconds from `now` to the next poll, 0 where it is due."""
        return max(0.0, self._poll_at - now)

    def take_unread(self) -> list[str]:
        """Give up to 500 jobs whose states the caller is to read now; empty once there are no more."""
        return [self._unread.pop() for _ in range(min(READ_AT_ONCE, len(self._unread)))]


def channel_of(job_id: str) -> str:
    """Name the channel on which a job's states are published: that of its key."""
    return STATE_KEY.format(job_id=job_id)


def _move(job_id: str, undone: set[str], wanted: set[str]) -> None:
    """Want a change of the subscriptions, or take its opposite back where that was not sent yet."""
    if job_id in undone:
        undone.discard(job_id)
    else:
        wanted.add(job_id)
