"""A request's stages, from arrival to outcome, without a model."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from omnifleet_worker.engine.admission_queue import PATIENCE
from omnifleet_worker.engine.fair_share import FairShare, StepTimer
from omnifleet_worker.engine.limits import REGROW_AFTER, BatchLimit, EngineLimits
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.engine.scheduler import Scheduler
from omnifleet_worker.models.audio_omni.chat import Chat

CHAT = Chat(system="", user="")


def answer(**fields: Any) -> Request:
    return Request(inputs=ChatInputs(chat=CHAT, max_new_tokens=3, temperature=0, seed=0), **fields)


def clip(**fields: Any) -> Request:
    return Request(inputs=DiffusionInputs(prompt=CHAT, steps=3, guidance=7.0, seed=1), **fields)


def scheduler_of(*requests: Request, places: int = 8, memory: int | None = None) -> Scheduler:
    scheduler = Scheduler(EngineLimits(clips=places, chats=places, memory=memory))
    for request in requests:
        scheduler.add(request)
    return scheduler


def prepare_all(scheduler: Scheduler) -> None:
    for request in scheduler.admit():
        scheduler.prepared(request)


def leave(scheduler: Scheduler, request: Request) -> None:
    scheduler.remove(request)
    scheduler.released(request)


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


def test_what_may_need_more_memory_than_is_left_is_not_even_prepared_until_another_has_left() -> None:
    first, second = clip(most_cost=6, cost=6), clip(most_cost=6)
    scheduler = scheduler_of(first, second, memory=10)

    assert scheduler.admit() == [first]
    scheduler.prepared(first)
    scheduler.finish(first)
    scheduler.remove(first)
    assert scheduler.admit() == []
    assert scheduler.reserved_memory == 6
    scheduler.released(first)

    assert scheduler.admit() == [second]


def test_once_it_is_prepared_a_request_counts_with_what_it_holds() -> None:
    first, second = clip(most_cost=6, cost=4), clip(most_cost=6)
    scheduler = scheduler_of(first, second, memory=10)
    assert scheduler.admit() == [first]

    scheduler.prepared(first)

    assert scheduler.admit() == [second]
    assert scheduler.reserved_memory == 10


def test_what_cannot_be_told_before_may_be_all_there_is() -> None:
    first, second = clip(cost=1), clip(cost=1)
    scheduler = scheduler_of(first, second, memory=10)

    assert scheduler.admit() == [first]
    assert scheduler.reserved_memory == 10


def test_a_request_that_is_larger_than_all_memory_has_it_alone() -> None:
    huge, small = clip(most_cost=100, cost=100), clip(most_cost=1)
    scheduler = scheduler_of(huge, small, memory=10)

    prepare_all(scheduler)

    assert scheduler.stepping("diffusion") == [huge]
    scheduler.remove(huge)
    scheduler.released(huge)
    assert scheduler.admit() == [small]


def test_who_waits_for_memory_is_not_overtaken_for_ever() -> None:
    first, large = clip(most_cost=6), clip(most_cost=6)
    scheduler = scheduler_of(first, large, places=100, memory=10)
    assert scheduler.admit() == [first]
    answers = [answer(most_cost=0) for _ in range(2 * PATIENCE)]
    for one in answers:
        scheduler.add(one)

    assert scheduler.admit() == answers[:PATIENCE]
    scheduler.remove(first)
    scheduler.released(first)
    assert scheduler.admit() == [large, *answers[PATIENCE:]]


def test_a_parked_request_goes_on_where_it_was_one_for_each_that_leaves_and_nobody_comes_meanwhile() -> None:
    first, second, third, fourth, late = (clip() for _ in range(5))
    scheduler = scheduler_of(first, second, third, fourth)
    prepare_all(scheduler)
    scheduler.park(second, "diffusion")
    scheduler.park(third, "finish")
    scheduler.add(late)
    assert scheduler.resume() == {}
    assert scheduler.admit() == []

    leave(scheduler, first)
    assert scheduler.resume() == {second: "diffusion"}
    assert scheduler.resume() == {}
    assert scheduler.admit() == []
    leave(scheduler, second)
    assert scheduler.resume() == {third: "finish"}
    assert scheduler.admit() == []
    leave(scheduler, fourth)
    assert scheduler.admit() == [late]


def test_where_only_parked_ones_are_left_the_last_begins_anew_and_the_first_goes_on() -> None:
    first, second = clip(), clip()
    scheduler = scheduler_of(first, second)
    prepare_all(scheduler)
    assert scheduler.park(first, "diffusion") is None
    assert not scheduler.is_alone(second)

    assert scheduler.park(second, "diffusion") is second
    scheduler.restart(second)

    assert scheduler.resume() == {first: "diffusion"}
    assert scheduler.is_alone(first)
    assert scheduler.admit() == []
    leave(scheduler, first)
    assert scheduler.admit() == [second]


def test_a_parked_request_keeps_its_place_and_its_memory_and_can_be_removed() -> None:
    first, second = clip(most_cost=5), clip(most_cost=5)
    scheduler = scheduler_of(first, second, places=1, memory=5)
    prepare_all(scheduler)
    first.cost = 5
    scheduler.park(first, "prepare")

    assert scheduler.admit() == []
    leave(scheduler, first)

    assert scheduler.admit() == [second]


class TestFairShare:
    def test_alone_a_kind_has_every_turn(self) -> None:
        turns = FairShare()
        turns.took("chat", 100.0)

        assert turns.next(["chat"]) == "chat"
        assert turns.next([]) is None

    def test_both_get_half_of_the_time_whatever_their_steps_take(self) -> None:
        turns = FairShare()
        spent = {"diffusion": 0.0, "chat": 0.0}
        seconds = {"diffusion": 0.1, "chat": 0.004}

        for _ in range(1000):
            kind = turns.next(["diffusion", "chat"])
            assert kind is not None
            turns.took(kind, seconds[kind])
            spent[kind] += seconds[kind]

        assert spent["chat"] == pytest.approx(spent["diffusion"], abs=0.1)

    def test_nobody_waits_for_longer_than_one_step_of_the_other(self) -> None:
        turns, waited = FairShare(), {"diffusion": 0.0, "chat": 0.0}
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
        turns = FairShare()
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


def test_the_pace_is_that_of_the_shortest_step() -> None:
    pace = StepTimer()
    assert pace.least_seconds("diffusion", 100) == 0

    for seconds in (0.3, 0.1, 0.2):
        pace.took("diffusion", seconds)

    assert pace.least_seconds("diffusion", 100) == pytest.approx(10)
    assert pace.least_seconds("chat", 100) == 0


@pytest.mark.parametrize("module", ["omnifleet_worker.engine.scheduler", "omnifleet_worker.engine.engine"])
def test_scheduling_needs_no_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
