"""Parts of streamed jobs in a real Redis: each once and in order, whatever repeats, comes late or lost its lease."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet_shared.broker.part_commits import PartCommits
from omnifleet_shared.errors import EngineStopped
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import LEASED_KEY, STREAM_KEY
from omnifleet_shared.schema.parts import StreamedPart
from redis import Redis

QUEUE = "audio-omni"
LEASED = LEASED_KEY.format(queue=QUEUE)
LIFETIME = 100


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def commits(redis: Redis) -> PartCommits:
    redis.hset(LEASED, "first", f"{QUEUE}\nmessage")
    return PartCommits(redis, QUEUE, LIFETIME)


def part(number: int, text: str) -> StreamedPart:
    return StreamedPart(number=number, text=text)


def texts(redis: Redis, after: int = 0) -> list[str | None]:
    return [one.text for one in JobStates(redis, LIFETIME).read_parts("job", after)]


def hand_over(redis: Redis, before: str, after: str) -> None:
    """As when a lease ends, and the next worker takes the message under a tag of its own."""
    redis.hdel(LEASED, before)
    redis.hset(LEASED, after, f"{QUEUE}\nmessage")


def test_parts_are_read_in_order_and_from_anywhere(commits: PartCommits, redis: Redis) -> None:
    for number, text in enumerate(("one", "two", "three"), 1):
        commits.commit("job", "first", part(number, text))

    assert texts(redis) == ["one", "two", "three"]
    assert texts(redis, after=2) == ["three"]
    assert texts(redis, after=9) == []
    assert 0 < redis.ttl(STREAM_KEY.format(job_id="job")) <= LIFETIME


def test_a_part_that_is_there_stays_as_it_is(commits: PartCommits, redis: Redis) -> None:
    commits.commit("job", "first", part(1, "one"))
    hand_over(redis, "first", "second")

    kept = commits.commit("job", "second", part(1, "another"))

    assert kept == part(1, "one")
    assert texts(redis) == ["one"]


def test_whoever_lost_the_lease_gives_out_nothing(commits: PartCommits, redis: Redis) -> None:
    commits.commit("job", "first", part(1, "one"))
    hand_over(redis, "first", "second")

    with pytest.raises(EngineStopped, match="lease"):
        commits.commit("job", "first", part(2, "late"))
    commits.commit("job", "second", part(2, "two"))

    assert texts(redis) == ["one", "two"]


def test_no_part_is_left_out(commits: PartCommits, redis: Redis) -> None:
    with pytest.raises(EngineStopped, match="vanished"):
        commits.commit("job", "first", part(2, "two"))

    assert texts(redis) == []


events = st.lists(st.sampled_from(["next", "again", "oldest again", "late", "killed"]), max_size=30)


@given(events)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_attempts_continue_each_other(commits: PartCommits, redis: Redis, happened: list[str]) -> None:
    redis.delete(STREAM_KEY.format(job_id="job"), LEASED)
    redis.hset(LEASED, "0", f"{QUEUE}\nmessage")
    attempt, given_out = 0, list[str]()

    for event in happened:
        text = f"{len(given_out) + 1} of {attempt}"
        if event == "next":
            commits.commit("job", str(attempt), part(len(given_out) + 1, text))
            given_out.append(text)
        elif event == "killed":
            hand_over(redis, str(attempt), str(attempt + 1))
            attempt += 1
        elif event == "late" and attempt:
            with pytest.raises(EngineStopped):
                commits.commit("job", str(attempt - 1), part(len(given_out) + 1, "late"))
        elif given_out:
            number = len(given_out) if event == "again" else 1
            assert commits.commit("job", str(attempt), part(number, "other")).text == given_out[number - 1]

    assert texts(redis) == given_out
