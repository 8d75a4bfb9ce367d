"""Who gets the next place, without a model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.schema.jobs import Priority
from omnifleet_worker.engine.admission_queue import PATIENCE, AdmissionQueue
from omnifleet_worker.engine.request import ChatInputs, Request
from omnifleet_worker.models.audio_omni.chat import Chat


def request(priority: Priority = "interactive") -> Request:
    inputs = ChatInputs(chat=Chat(system="", user=""), max_new_tokens=3, temperature=0, seed=0)
    return Request(inputs=inputs, priority=priority)


def line_of(*requests: Request, places: int) -> AdmissionQueue:
    line = AdmissionQueue(places)
    for one in requests:
        line.add(one)
    return line


def admit(line: AdmissionQueue) -> list[Request]:
    """Give as many requests their places as there are places."""
    admitted = []
    while (request := line.next()) is not None:
        line.place()
        admitted.append(request)
    return admitted


def test_no_more_requests_have_a_place_than_allowed() -> None:
    requests = [request() for _ in range(3)]
    line = line_of(*requests, places=2)

    assert admit(line) == requests[:2]
    assert admit(line) == []


def test_a_place_that_is_left_goes_to_the_next_in_line() -> None:
    first, second = request(), request()
    line = line_of(first, second, places=1)
    admit(line)

    line.leave(first)

    assert admit(line) == [second]


def test_interactive_requests_overtake_batch_requests_that_wait() -> None:
    batch, interactive = request("batch"), request("interactive")

    assert admit(line_of(batch, interactive, places=1)) == [interactive]


@pytest.mark.parametrize(("places", "for_batch"), [(1, 1), (2, 1), (4, 3)])
def test_batch_requests_leave_a_place_to_interactive_ones(places: int, for_batch: int) -> None:
    line = line_of(*(request("batch") for _ in range(places)), places=places)
    urgent = request()

    assert len(admit(line)) == for_batch
    line.add(urgent)

    assert admit(line) == ([urgent] if places > 1 else [])


@pytest.mark.parametrize("places", [1, 2, 4])
def test_a_batch_request_waits_for_so_many_interactive_ones_and_no_more(places: int) -> None:
    batch = request("batch")
    line = line_of(batch, *(request() for _ in range(2 * PATIENCE)), places=places)

    order: list[Request] = []
    for turn in range(2 * PATIENCE + 1):
        order += admit(line)
        line.leave(order[turn])

    assert order.index(batch) == PATIENCE


@given(st.lists(st.sampled_from(["interactive", "batch"]), max_size=40), st.integers(1, 4))
def test_nobody_waits_for_ever_however_many_come_after(before: list[Priority], places: int) -> None:
    early = [request(priority) for priority in before]
    line = line_of(*early, places=places)

    placed: list[Request] = []
    for _ in range((PATIENCE + 1) * (len(early) + 1)):
        for late in ("interactive", "batch"):
            line.add(request(late))
        placed += admit(line)
        line.leave(placed.pop(0))

    assert not set(early) & set(line.waiting)


def test_a_waiting_request_can_leave() -> None:
    only = request()
    line = line_of(only, places=1)

    line.leave(only)

    assert list(line.waiting) == []
    assert admit(line) == []


@given(
    st.lists(st.sampled_from(["add", "add batch", "admit", "leave"]), max_size=60),
    st.integers(min_value=1, max_value=4),
)
def test_every_request_is_admitted_exactly_once_and_in_its_lane_s_order(moves: list[str], places: int) -> None:
    line = AdmissionQueue(places)
    added: list[Request] = []
    admitted: list[Request] = []
    placed: list[Request] = []
    for move in [*moves, *["leave", "admit"] * len(moves)]:
        if move.startswith("add"):
            added.append(request("batch" if "batch" in move else "interactive"))
            line.add(added[-1])
        elif move == "admit":
            placed += (new := admit(line))
            admitted += new
        elif placed:
            line.leave(placed.pop(0))
        assert len(placed) <= places

    assert {id(one) for one in admitted} == {id(one) for one in added}
    assert len(admitted) == len(added)
    for lane in ("interactive", "batch"):
        assert [one for one in admitted if one.priority == lane] == [one for one in added if one.priority == lane]


def test_who_has_the_turn_keeps_it_until_it_is_placed_or_leaves() -> None:
    first, second = request("batch"), request()
    line = line_of(first, places=2)
    assert line.next() is first

    line.add(second)

    assert line.next() is first
    assert list(line.waiting) == [first, second]
    line.leave(first)
    assert line.next() is second


def test_who_had_its_place_before_is_the_next() -> None:
    before, waiting = request(), request()
    line = line_of(before, waiting, places=1)
    admit(line)

    line.leave(before)
    line.add_first(before)

    assert admit(line) == [before]
