"""A request's stages, from arrival to outcome, without a model."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omnifleet_worker.engine.fair_share import Turns
from omnifleet_worker.engine.limits import REGROW_AFTER, BatchLimit, EngineLimits
from omnifleet_worker.engine.pace import Pace
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.engine.scheduler import Scheduler
from omnifleet_worker.models.audio_omni.chat import Chat

CHAT = Chat(system="", user="")


def answer() -> Request:
    return Request(inputs=ChatInputs(chat=CHAT, max_new_tokens=3, temperature=0, seed=0))


def clip(cost: int = 0) -> Request:
    return Request(inputs=DiffusionInputs(prompt=CHAT, steps=3, guidance=7.0, seed=1), cost=cost)


def scheduler_of(*requests: Request, places: int = 8, memory: int | None = None) -> Scheduler:
    scheduler = Scheduler(EngineLimits(clips=places, chats=places, memory=memory))
    for request in requests:
        scheduler.add(request)
    return scheduler


def prepare_all(scheduler: Scheduler) -> None:
    for request in scheduler.admit():
        scheduler.prepared(request)


def test_a_request_steps_once_it_is_prepared_and_its_place_is_free_once_its_steps_are_taken() -> None:
    first, second = clip(), clip()
    scheduler = scheduler_of(first, second, places=1)

    assert scheduler.admit() == [first]
    assert scheduler.stepping("diffusion") == []
    scheduler.prepared(first)
    assert scheduler.stepping("diffusion") == [first]
    assert scheduler.admit() == []
    scheduler.finish(first)
    assert scheduler.admit() == [second]
    assert set(scheduler) == {first, second}
    scheduler.remove(first)
    assert set(scheduler) == {second}


def test_clips_do_not_take_the_places_of_answers() -> None:
    clips, asked = [clip(), clip()], answer()
    scheduler = scheduler_of(*clips, asked, places=1)

    assert scheduler.admit() == [clips[0], asked]


def test_what_memory_does_not_suffice_for_waits_until_another_has_left() -> None:
    first, second, third = clip(cost=6), clip(cost=6), clip(cost=3)
    scheduler = scheduler_of(first, second, third, memory=10)

    prepare_all(scheduler)
    assert scheduler.stepping("diffusion") == [first, third]
    assert scheduler.resume() == {}
    scheduler.remove(first)

    assert scheduler.resume() == {second: "diffusion"}
    assert scheduler.stepping("diffusion") == [third, second]


def test_a_request_that_is_larger_than_all_memory_steps_alone() -> None:
    huge, small = clip(cost=100), clip(cost=1)
    scheduler = scheduler_of(huge, small, memory=10)

    prepare_all(scheduler)

    assert scheduler.stepping("diffusion") == [huge]
    scheduler.remove(huge)
    assert scheduler.resume() == {small: "diffusion"}


def test_a_parked_request_goes_on_where_it_was_one_for_each_that_leaves() -> None:
    first, second, third = clip(), clip(), clip()
    scheduler = scheduler_of(first, second, third)
    prepare_all(scheduler)

    scheduler.park(second, "diffusion")
    scheduler.park(third, "finish")
    assert scheduler.resume() == {}
    scheduler.remove(first)

    assert scheduler.resume() == {second: "diffusion"}
    assert scheduler.resume() == {}
    scheduler.finish(second)
    assert scheduler.resume() == {third: "finish"}


def test_when_all_are_parked_the_first_goes_on() -> None:
    first, second = clip(), clip()
    scheduler = scheduler_of(first, second)
    prepare_all(scheduler)
    scheduler.park(first, "diffusion")

    assert scheduler.is_alone(second)
    scheduler.park(second, "diffusion")

    assert scheduler.resume() == {first: "diffusion"}


def test_a_parked_request_keeps_its_place_and_can_be_removed() -> None:
    first, second = clip(), clip()
    scheduler = scheduler_of(first, second, places=1)
    prepare_all(scheduler)
    scheduler.park(first, "prepare")

    assert scheduler.admit() == []
    scheduler.remove(first)

    assert scheduler.admit() == [second]


class TestTurns:
    def test_alone_a_kind_has_every_turn(self) -> None:
        turns = Turns()
        turns.took("chat", 100.0)

        assert turns.next(["chat"]) == "chat"
        assert turns.next([]) is None

    def test_both_get_half_of_the_time_whatever_their_steps_take(self) -> None:
        turns = Turns()
        spent = {"diffusion": 0.0, "chat": 0.0}
        seconds = {"diffusion": 0.1, "chat": 0.004}

        for _ in range(1000):
            kind = turns.next(["diffusion", "chat"])
            assert kind is not None
            turns.took(kind, seconds[kind])
            spent[kind] += seconds[kind]

        assert spent["chat"] == pytest.approx(spent["diffusion"], abs=0.1)

    def test_nobody_waits_for_longer_than_one_step_of_the_other(self) -> None:
        turns, waited = Turns(), {"diffusion": 0.0, "chat": 0.0}
        seconds = {"diffusion": 0.1, "chat": 0.004}

        for _ in range(1000):
            kind = turns.next(["diffusion", "chat"])
            assert kind is not None
            other = "chat" if kind == "diffusion" else "diffusion"
            turns.took(kind, seconds[kind])
            waited[kind] = 0.0
            waited[other] += seconds[kind]
            assert waited[other] <= 0.1 + 2 * 0.004

    def test_idleness_saves_nothing_up(self) -> None:
        turns = Turns()
        turns.took("diffusion", 50.0)
        turns.next(["diffusion"])

        order = []
        for _ in range(4):
            kind = turns.next(["diffusion", "chat"])
            assert kind is not None
            turns.took(kind, 1.0)
            order.append(kind)

        assert order == ["diffusion", "chat", "diffusion", "chat"]


class TestBatchLimit:
    def test_it_is_halved_where_memory_ran_out_and_grows_again_one_by_one(self) -> None:
        limit = BatchLimit(8)
        requests = [clip() for _ in range(8)]

        limit.ran_out(8)
        assert [len(batch) for batch in limit.split(requests)] == [4, 4]
        for _ in range(REGROW_AFTER):
            limit.went_well()
        assert [len(batch) for batch in limit.split(requests)] == [5, 3]
        for _ in range(REGROW_AFTER * 10):
            limit.went_well()
        assert limit.allowed == 8

    def test_one_at_a_time_is_the_least(self) -> None:
        limit = BatchLimit(8)
        limit.ran_out(1)
        assert limit.allowed == 1


def test_pace_is_that_of_the_shortest_step() -> None:
    pace = Pace()
    assert pace.least_seconds("diffusion", 100) == 0

    for seconds in (0.3, 0.1, 0.2):
        pace.took("diffusion", seconds)

    assert pace.least_seconds("diffusion", 100) == pytest.approx(10)
    assert pace.least_seconds("chat", 100) == 0


@pytest.mark.parametrize("module", ["omnifleet_worker.engine.scheduler", "omnifleet_worker.engine.engine"])
def test_scheduling_needs_no_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
