"""Which jobs are subscribed to and read, in whatever order they come, go, and are heard of."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from omnifleet_shared.job_state.watched_jobs import POLL_INTERVAL, READ_AT_ONCE, WatchedJobs, channel_of

JOB_IDS = st.sampled_from([f"job-{number}" for number in range(5)])


def message(kind: str, job_id: str, data: bytes = b"") -> dict[str, Any]:
    return {"type": kind, "channel": channel_of(job_id).encode(), "data": data}


class Subscriptions(RuleBasedStateMachine):
    """A waiter and a Redis that keeps its subscriptions; the connection may be a new one at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = WatchedJobs()
        self.wanted: set[str] = set()
        self.subscribed: set[str] = set()
        self.unread: set[str] = set()

    @rule(job_id=JOB_IDS)
    def add(self, job_id: str) -> None:
        self.jobs.add([job_id])
        self.wanted.add(job_id)
        self.unread.add(job_id)

    @rule(job_id=JOB_IDS)
    def add_one_that_was_read(self, job_id: str) -> None:
        self.jobs.add([job_id], read_at=0.0)
        self.wanted.add(job_id)

    @rule(job_id=JOB_IDS)
    def discard(self, job_id: str) -> None:
        self.jobs.discard([job_id])
        self.wanted.discard(job_id)
        self.unread.discard(job_id)

    @rule()
    def reconnect(self) -> None:
        self.jobs.resubscribe()
        self.subscribed.clear()

    @rule(job_id=JOB_IDS)
    def confirm(self, job_id: str) -> None:
        assert self.jobs.hear(message("subscribe", job_id)) is None
        self.unread |= {job_id} & self.wanted

    @rule(job_id=JOB_IDS)
    def publish(self, job_id: str) -> None:
        expected = (job_id, b"record") if job_id in self.wanted else None
        assert self.jobs.hear(message("message", job_id, b"record")) == expected

    @rule()
    def read(self) -> None:
        assert set(self.jobs.take_unread()) == self.unread
        self.unread.clear()

    @rule()
    def subscribe(self) -> None:
        joined, left = self.jobs.take_subscriptions()
        assert not set(joined) & set(left)
        self.subscribed |= set(joined)
        self.subscribed -= set(left)
        assert self.subscribed == {*map(channel_of, self.wanted)}

    @invariant()
    def says_what_is_unread(self) -> None:
        assert self.jobs.has_unread == bool(self.unread)


TestSubscriptions = Subscriptions.TestCase


def test_a_poll_without_a_limit_reads_all() -> None:
    jobs = WatchedJobs()
    jobs.add(map(str, range(3 * READ_AT_ONCE)))
    assert sorted(len(jobs.take_unread()) for _ in range(4)) == [0, READ_AT_ONCE, READ_AT_ONCE, READ_AT_ONCE]

    jobs.poll(now=100.0)

    assert len([*jobs.take_unread(), *jobs.take_unread(), *jobs.take_unread()]) == 3 * READ_AT_ONCE


def test_polls_with_a_limit_read_all_in_turn() -> None:
    jobs = WatchedJobs(poll_limit=2)
    jobs.add("abcde")
    jobs.take_unread()
    read = []

    for number in range(3):
        jobs.poll(now=100 + number * POLL_INTERVAL)
        read.append(set(jobs.take_unread()))

    assert [len(some) for some in read] == [2, 2, 1]
    assert set.union(*read) == set("abcde")


def test_polls_keep_their_distance() -> None:
    jobs = WatchedJobs()
    jobs.add("a")
    jobs.poll(now=100.0)
    jobs.take_unread()

    jobs.poll(now=100.0 + POLL_INTERVAL / 2)

    assert not jobs.has_unread
    assert jobs.seconds_to_poll(100.0 + POLL_INTERVAL / 2) == POLL_INTERVAL / 2
    assert jobs.seconds_to_poll(100.0 + 3 * POLL_INTERVAL) == 0


def test_a_job_that_was_read_is_read_again_once_it_is_subscribed_to_and_at_the_next_poll() -> None:
    jobs = WatchedJobs()
    jobs.add("a", read_at=100.0)
    jobs.poll(now=100.0 + POLL_INTERVAL / 2)
    assert not jobs.has_unread

    jobs.hear(message("subscribe", "a"))
    assert jobs.take_unread() == ["a"]

    jobs.poll(now=100.0 + POLL_INTERVAL)
    assert jobs.take_unread() == ["a"]
