"""Who runs next, without a model."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.jobs import Priority
from omnifleet_worker.engine.request import ChatInputs, Request
from omnifleet_worker.engine.scheduler import PATIENCE, Scheduler
from omnifleet_worker.models.chat import Chat


def request(priority: Priority = "interactive") -> Request:
    inputs = ChatInputs(chat=Chat(system="", user=""), max_new_tokens=3, temperature=0, seed=0)
    return Request(inputs=inputs, priority=priority)


def test_no_more_requests_are_active_than_allowed() -> None:
    scheduler = Scheduler(max_active=2)
    requests = [request() for _ in range(3)]
    for one in requests:
        scheduler.add(one)

    assert scheduler.admit() == requests[:2]
    assert scheduler.admit() == []


def test_a_place_that_is_left_goes_to_the_next_in_line() -> None:
    scheduler = Scheduler(max_active=1)
    first, second = request(), request()
    scheduler.add(first)
    scheduler.add(second)
    scheduler.admit()

    scheduler.remove(first)

    assert scheduler.admit() == [second]
    assert scheduler.active == [second]


def test_interactive_requests_overtake_batch_requests_that_wait() -> None:
    scheduler = Scheduler(max_active=1)
    batch, interactive = request("batch"), request("interactive")
    scheduler.add(batch)
    scheduler.add(interactive)

    assert scheduler.admit() == [interactive]


@pytest.mark.parametrize(("places", "for_batch"), [(1, 1), (2, 1), (4, 3)])
def test_batch_requests_leave_a_place_to_interactive_ones(places: int, for_batch: int) -> None:
    scheduler = Scheduler(max_active=places)
    for _ in range(places):
        scheduler.add(request("batch"))
    urgent = request()

    assert len(scheduler.admit()) == for_batch
    scheduler.add(urgent)

    assert scheduler.admit() == ([urgent] if places > 1 else [])


@pytest.mark.parametrize("places", [1, 2, 4])
def test_a_batch_request_waits_for_so_many_interactive_ones_and_no_more(places: int) -> None:
    scheduler = Scheduler(max_active=places)
    batch = request("batch")
    for one in [batch, *(request() for _ in range(2 * PATIENCE))]:
        scheduler.add(one)

    order = []
    while scheduler.has_work:
        order += scheduler.admit()
        scheduler.remove(scheduler.active[0])

    assert order.index(batch) == PATIENCE


@given(st.lists(st.sampled_from(["interactive", "batch"]), max_size=40), st.integers(1, 4))
def test_nobody_waits_for_ever_however_many_come_after(before: list[Priority], places: int) -> None:
    scheduler = Scheduler(max_active=places)
    early = [request(priority) for priority in before]
    for one in early:
        scheduler.add(one)

    for _ in range((PATIENCE + 1) * (len(early) + 1)):
        for late in ("interactive", "batch"):
            scheduler.add(request(late))
        scheduler.admit()
        scheduler.remove(scheduler.active[0])

    assert not set(early) & set(scheduler)


def test_a_waiting_request_can_be_removed() -> None:
    scheduler = Scheduler(max_active=1)
    only = request()
    scheduler.add(only)

    scheduler.remove(only)

    assert not scheduler.has_work
    assert scheduler.admit() == []


@given(
    st.lists(st.sampled_from(["add", "add batch", "admit", "finish"]), max_size=60),
    st.integers(min_value=1, max_value=4),
)
def test_every_request_is_admitted_exactly_once_and_in_its_lane_s_order(moves: list[str], places: int) -> None:
    scheduler = Scheduler(max_active=places)
    added: list[Request] = []
    admitted: list[Request] = []
    for move in [*moves, *["finish", "admit"] * len(moves)]:
        if move.startswith("add"):
            added.append(request("batch" if "batch" in move else "interactive"))
            scheduler.add(added[-1])
        elif move == "admit":
            admitted += scheduler.admit()
        elif scheduler.active:
            scheduler.remove(scheduler.active[0])
        assert len(scheduler.active) <= places

    assert {id(one) for one in admitted} == {id(one) for one in added}
    assert len(admitted) == len(added)
    for lane in ("interactive", "batch"):
        assert [one for one in admitted if one.priority == lane] == [one for one in added if one.priority == lane]


@pytest.mark.parametrize("module", ["omnifleet_worker.engine.scheduler", "omnifleet_worker.engine.engine"])
def test_scheduling_needs_no_torch(module: str) -> None:
    check = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
