"""What the keeper renews, recovers, and ends the process for; with leases and an engine that do as they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest
from omnifleet_shared.broker.kinds import Place
from omnifleet_shared.broker.leases import Leases
from omnifleet_shared.errors import BrokerUnavailable
from omnifleet_worker import lease_renewer as renewer_module
from omnifleet_worker.lease_renewer import EXIT_HUNG, EXIT_POLL_STALLED, LeaseRenewer
from support.services import wait_until


class FakeLeases:
    """Remembers what it is asked."""

    seconds = 0.02

    def __init__(self) -> None:
        self.renewed: list[list[str]] = []
        self.released: list[str] = []
        self.postponed: list[tuple[str, float]] = []
        self.lost: set[str] = set()
        self.away = False
        self.refused = 0

    def renew(self, tags: Sequence[str]) -> set[str]:
        if self.away:
            self.refused += 1
            raise BrokerUnavailable("away")
        self.renewed.append(list(tags))
        return self.lost & set(tags)

    def ack(self, tag: str) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        self.released.append(tag)

    def postpone(self, tag: str, seconds: float) -> None:
        self.postponed.append((tag, seconds))

    def recover(self) -> int:
        return 0


class Ended(BaseException):
    """The process would have ended."""


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def end(code: int) -> None:
        codes.append(code)
        raise Ended

    monkeypatch.setattr(renewer_module, "end_process", end)
    return codes


@dataclass
class Clock:
    """Goes on when the test says so: on a busy machine a lease of 20 ms would be over between two lines."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(renewer_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
def leases() -> FakeLeases:
    return FakeLeases()


def keeper_of(
    leases: FakeLeases, *, engine_stalled: float = 0.0, lost: list[str] | None = None, slots: int = 2
) -> LeaseRenewer:
    return LeaseRenewer(
        cast(Leases, leases),
        places={"sounds": slots},
        engine_stalled=lambda: engine_stalled,
        engine_timeout=10,
        poll_timeout=0.05,
        on_lost=(lost if lost is not None else []).append,
    )


def test_what_is_held_is_renewed_until_it_is_let_go(leases: FakeLeases) -> None:
    lease_renewer = keeper_of(leases)
    lease_renewer.track("a")
    lease_renewer.track("b")
    lease_renewer.stop_renewing("b")

    lease_renewer.renew_and_recover()

    assert leases.renewed == [["a"]]


def test_what_was_received_and_never_started_is_left_to_its_lease(leases: FakeLeases, clock: Clock) -> None:
    lease_renewer = keeper_of(leases)
    lease_renewer.track("dropped")
    lease_renewer.track("running")
    lease_renewer.mark_running("running")
    clock.now += 4 * leases.seconds

    lease_renewer.renew_and_recover()

    assert leases.renewed == [["running"]]


def test_who_runs_a_lost_lease_is_told_once(leases: FakeLeases) -> None:
    told: list[str] = []
    lease_renewer = keeper_of(leases, lost=told)
    lease_renewer.track("a")
    leases.lost = {"a"}

    lease_renewer.renew_and_recover()
    lease_renewer.renew_and_recover()

    assert told == ["a"]


def test_a_lease_that_ends_with_its_job_s_outcome_is_not_lost(leases: FakeLeases) -> None:
    told: list[str] = []
    lease_renewer = keeper_of(leases, lost=told)
    lease_renewer.track("a")
    lease_renewer.mark_finishing("a")
    leases.lost = {"a"}

    lease_renewer.renew_and_recover()
    lease_renewer.stop_renewing("a")
    lease_renewer.ack("a")

    assert (told, lease_renewer.counts.lost, leases.released) == ([], 0, [])


def test_a_release_that_redis_does_not_hear_of_is_renewed_no_more(leases: FakeLeases) -> None:
    lease_renewer = keeper_of(leases)
    lease_renewer.track("a")
    leases.away = True

    lease_renewer.ack("a")

    leases.away = False
    lease_renewer.renew_and_recover()
    assert leases.renewed == [[]]


def test_stopping_hands_back_what_is_held(leases: FakeLeases) -> None:
    lease_renewer = keeper_of(leases)
    lease_renewer.track("a")

    lease_renewer.stop()

    assert leases.postponed == [("a", 0)]


def test_an_engine_that_stalls_ends_the_process(leases: FakeLeases, ended: list[int]) -> None:
    with pytest.raises(Ended):
        keeper_of(leases, engine_stalled=11)._check_engine()

    assert ended == [EXIT_HUNG]


def test_an_engine_that_steps_does_not(leases: FakeLeases, ended: list[int]) -> None:
    keeper_of(leases, engine_stalled=9)._check_engine()

    assert ended == []


def test_a_consumer_that_stops_asking_ends_the_process(leases: FakeLeases, ended: list[int], clock: Clock) -> None:
    lease_renewer = keeper_of(leases)
    lease_renewer.note_poll()
    clock.now += 0.06

    with pytest.raises(Ended):
        lease_renewer._check_consumer()

    assert ended == [EXIT_POLL_STALLED]


def test_a_consumer_that_could_not_ask_has_its_patience_anew(
    leases: FakeLeases, ended: list[int], clock: Clock
) -> None:
    lease_renewer = keeper_of(leases)
    lease_renewer.note_poll()
    leases.away = True
    clock.now += 0.1
    lease_renewer.start()
    wait_until(lambda: leases.refused >= 2, what="two looks at a Redis that is away")
    leases.away = False

    lease_renewer._check_consumer()

    assert ended == []
    lease_renewer.stop()


@pytest.mark.parametrize("why", ["never asked yet", "all places taken", "being stopped"])
def test_a_consumer_with_a_reason_not_to_ask_is_left_alone(
    leases: FakeLeases, ended: list[int], clock: Clock, why: str
) -> None:
    lease_renewer = keeper_of(leases, slots=1)
    if why != "never asked yet":
        lease_renewer.note_poll()
    if why == "all places taken":
        lease_renewer.track("a")
    if why == "being stopped":
        lease_renewer.stop_polling()
    clock.now += 0.06

    lease_renewer._check_consumer()

    assert ended == []


class TestAFreePlace:
    @pytest.mark.parametrize("batch", [False, True])
    def test_wakes_a_consumer_that_does_not_poll_for_it(self, leases: FakeLeases, batch: bool) -> None:
        lease_renewer, woken = keeper_of(leases), list[str]()
        lease_renewer.on_room = lambda: woken.append("woken")
        lease_renewer.track("a", "sounds", batch=batch)
        lease_renewer.polled = frozenset({Place("sounds", not batch), Place("answers", batch)})

        lease_renewer.stop_renewing("a")
        lease_renewer.stop_renewing("a")

        assert woken == ["woken"]
        assert lease_renewer.room_for(Place("sounds", batch))

    def test_is_no_news_to_one_that_polls_for_it(self, leases: FakeLeases) -> None:
        lease_renewer, woken = keeper_of(leases), list[str]()
        lease_renewer.on_room = lambda: woken.append("woken")
        lease_renewer.track("a")
        lease_renewer.polled = frozenset({Place("sounds", False)})

        lease_renewer.stop_renewing("a")

        assert woken == []
