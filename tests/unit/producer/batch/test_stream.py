"""`Client.batch`: lazily fed, one outcome a job, and one bad item leaves the others alone."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from omnifleet import (
    BrokerUnavailable,
    Client,
    InvalidJob,
    JobCancelled,
    MediaTooLong,
    OmnifleetError,
    QueueFull,
    QuotaExceeded,
)
from omnifleet.batch import Outcome, Request, concurrency, dispatcher, edit, generate, understand
from omnifleet.batch.concurrency import InFlightLimit
from omnifleet.testing import FakeClient, FakeFleet
from omnifleet_shared.broker.worker_registry import Capacity
from omnifleet_shared.schema.jobs import Job


def questions(count: int) -> Iterator[Request]:
    return (understand(question=f"What is {number}?") for number in range(count))


class Refusing(FakeFleet):
    """Refuses what it was made with before it does anything."""

    def __init__(self, *refusals: OmnifleetError) -> None:
        super().__init__()
        self.refusals = list(refusals)

    def submit(self, job: Job, *about: Any) -> str:
        if self.refusals:
            raise self.refusals.pop(0)
        return super().submit(job, *about)


def test_every_job_has_one_outcome_and_its_request() -> None:
    jobs = list(questions(50))

    outcomes = list(FakeClient(answer=lambda job: job.task.text).batch(jobs))  # type: ignore[union-attr]

    assert {outcome.index for outcome in outcomes} == set(range(50))
    assert all(outcome.request is jobs[outcome.index] for outcome in outcomes)
    assert all(outcome.result.text == f"What is {outcome.index}?" for outcome in outcomes)


def test_jobs_have_batch_priority_unless_they_name_another() -> None:
    omni = FakeClient()

    list(omni.batch([generate("t2a", "rain"), generate("t2a", "wind", priority="interactive")]))

    assert {job.priority for job in omni.jobs} == {"batch", "interactive"}


def test_media_are_uploaded_and_audio_comes_back() -> None:
    omni = FakeClient()

    (outcome,) = omni.batch([edit("Add", b"a recording", desc="rain")])

    task: Any = omni.jobs[0].task
    assert omni.fleet.storage.get(task.audio.uri, max_bytes=99) == b"a recording"
    assert outcome.result.audio is not None and outcome.result.audio.read()


@pytest.mark.parametrize("in_order", [False, True])
def test_the_iterator_is_never_pulled_further_ahead_than_asked(in_order: bool) -> None:
    pulled = 0

    def jobs() -> Iterator[Request]:
        nonlocal pulled
        for job in questions(60):
            pulled += 1
            yield job

    for done, _ in enumerate(FakeClient().batch(jobs(), in_flight=7, in_order=in_order)):
        assert pulled - done <= 7
    assert pulled == 60


def test_nothing_is_pulled_before_it_is_asked_for() -> None:
    def jobs() -> Iterator[Request]:
        raise AssertionError("pulled")
        yield

    FakeClient().batch(jobs())


def test_outcomes_come_as_they_are_there_or_in_order() -> None:
    def held(in_order: bool) -> list[int]:
        omni = FakeClient()
        omni.fleet.hold()
        outcomes: list[Outcome] = []
        asking = threading.Thread(target=lambda: outcomes.extend(omni.batch(questions(3), in_order=in_order)))
        asking.start()
        while len(omni.jobs) < 3:
            pass
        by_text = {job.task.text: job.job_id for job in omni.jobs}  # type: ignore[union-attr]
        omni.fleet.release(by_text["What is 2?"])
        while not in_order and not outcomes:
            pass
        omni.fleet.release()
        asking.join()
        return [outcome.index for outcome in outcomes]

    assert held(in_order=False)[0] == 2
    assert held(in_order=True) == [0, 1, 2]


@pytest.mark.parametrize(
    "bad",
    [
        5,
        None,
        {"audio": b"x"},
        {"task": "add", "audio": b"x"},
        {"task": "edit.mend", "audio": b"x", "desc": "rain"},
        {"task": "edit.add", "audio": b"x", "desk": "rain"},
        {"task": "edit.add", "desc": "rain"},
        {"task": "edit.add", "audio": 5, "desc": "rain"},
        {"task": "edit.add", "audio": "nowhere.wav", "desc": "rain"},
        {"task": "understand.caption", "audio": b"x", "history": 5},
        {"task": "edit.add", "self": 1},
        edit("Add", b"", desc="rain"),
        edit("Add", b"x", desc="rain", colour="red"),  # type: ignore[call-arg]
    ],
)
def test_a_bad_item_is_an_outcome_and_the_others_are_done(bad: Any) -> None:
    good = {"task": "understand.caption", "audio": b"a recording"}

    outcomes = list(FakeClient().batch([good, bad, good], in_order=True))

    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].request is bad
    with pytest.raises(OmnifleetError):
        _ = outcomes[1].result


def test_a_job_that_fails_is_an_outcome_with_its_own_error() -> None:
    omni = FakeClient(answer=lambda job: MediaTooLong("over 600 s", "audio"))

    (outcome,) = omni.batch([edit("Add", b"x", desc="rain")])

    assert isinstance(outcome.error, MediaTooLong)
    with pytest.raises(MediaTooLong):
        _ = outcome.result


def test_a_cancelled_job_is_an_outcome_too() -> None:
    (outcome,) = FakeClient(answer=lambda job: JobCancelled("stop")).batch(questions(1))

    assert isinstance(outcome.error, JobCancelled)


def test_items_of_one_idempotency_key_are_one_job() -> None:
    omni = FakeClient()

    outcomes = list(omni.batch(understand(question="What?", idempotency_key="same") for _ in range(5)))

    assert len(outcomes) == 5
    assert len({outcome.job_id for outcome in outcomes}) == 1
    assert len(omni.jobs) == 1


def test_a_full_queue_is_waited_for() -> None:
    fleet = Refusing(QueueFull("full", details={"retry_after": 0.01}), QueueFull("full", details={"retry_after": 0.01}))

    outcomes = list(FakeClient(fleet=fleet).batch(questions(5), in_flight=2))

    assert [outcome.error for outcome in outcomes] == [None] * 5


def test_a_tenants_next_day_is_waited_for_and_a_raised_quota_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "LONGEST_DELAY", 0.01)
    fleet = Refusing(QuotaExceeded("used up", "tenant", details={"retry_after": 80_000}))

    outcomes = list(FakeClient(fleet=fleet).batch(questions(3), in_flight=2))

    assert [outcome.error for outcome in outcomes] == [None] * 3


def test_a_redis_that_is_not_there_at_all_is_said_at_once() -> None:
    fleet = Refusing(*[BrokerUnavailable("away")] * 100)

    with pytest.raises(BrokerUnavailable):
        list(FakeClient(fleet=fleet).batch(questions(5)))


def test_a_redis_that_goes_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "RESEND_DELAY", 0.01)
    fleet = Refusing()
    outcomes = FakeClient(fleet=fleet).batch(questions(20), in_flight=1)
    first = next(outcomes)
    fleet.refusals = [BrokerUnavailable("away")] * 3

    rest = list(outcomes)

    assert [outcome.error for outcome in (first, *rest)] == [None] * 20
    assert len(fleet.jobs) == 20


def test_a_limit_below_one_is_refused_at_once() -> None:
    with pytest.raises(InvalidJob, match="in_flight"):
        FakeClient().batch([], in_flight=0)


def test_no_jobs_have_no_outcomes() -> None:
    assert list(FakeClient().batch([])) == []


@pytest.mark.parametrize(
    ("call", "method"), [(understand, Client.understand), (generate, Client.generate), (edit, Client.edit)]
)
def test_a_request_has_the_arguments_of_the_call(call: Any, method: Any) -> None:
    names = [name for name in inspect.signature(method).parameters if name not in ("self", "options")]
    positional = [
        name for name, one in inspect.signature(method).parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD
    ][1:]

    request = call(*positional, **{name: name for name in names if name not in positional}, seed=3)

    assert request == Request(method.__name__, {name: name for name in names} | {"seed": 3})


class TestInFlightLimit:
    @pytest.mark.parametrize(("slots", "size"), [(0, 16), (4, 16), (16, 32), (64, 128)])
    def test_it_is_twice_what_the_fleet_holds(self, slots: int, size: int) -> None:
        assert InFlightLimit(lambda: Capacity(workers=1, slots=slots)).size == size

    def test_it_stays_as_it_was_while_redis_is_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(concurrency, "REFRESH_INTERVAL", 0.0)
        capacities: list[Capacity | None] = [Capacity(workers=2, slots=32), None]

        def capacity() -> Capacity:
            if (known := capacities.pop(0)) is None:
                raise BrokerUnavailable("away")
            return known

        limit = InFlightLimit(capacity)

        assert (limit.size, limit.size) == (64, 64)
        assert limit.workers == 2

    def test_a_limit_that_was_given_stays(self) -> None:
        assert InFlightLimit(lambda: Capacity(workers=9, slots=99), 5).size == 5
