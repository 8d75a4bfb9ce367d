"""A worker's places for jobs, by kind."""

from __future__ import annotations

import pytest
from omnifleet_shared.broker.kinds import JobKind, Place
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.places import JobPlaces, of_each_kind, worth_holding


def test_a_kind_takes_no_place_of_the_other() -> None:
    places = JobPlaces({"sounds": 2, "answers": 1})

    places.take("a", Place("sounds", False))
    places.take("b", Place("sounds", False))

    assert not places.free(Place("sounds", False))
    assert places.free(Place("answers", False))
    assert not places.all_taken
    places.take("c", Place("answers", False))
    assert places.all_taken
    places.leave("a")
    assert places.free(Place("sounds", False))


def test_a_batch_leaves_one_place_of_each_kind_where_there_are_several() -> None:
    places = JobPlaces(of_each_kind(2))

    places.take("a", Place("sounds", True))

    assert not places.free(Place("sounds", True))
    assert places.free(Place("sounds", False))
    assert places.free(Place("answers", True))
    assert JobPlaces(of_each_kind(1)).free(Place("sounds", True))


def test_a_message_that_is_tracked_twice_has_one_place() -> None:
    places = JobPlaces({"sounds": 2})

    places.take("a", Place("sounds", False))
    places.take("a", Place("sounds", True))
    places.leave("a")
    places.leave("a")

    assert places.free_beside(["a"], Place("sounds", True))
    assert places.free(Place("sounds", True))


def test_messages_that_were_dropped_on_the_way_hold_no_place() -> None:
    places = JobPlaces({"sounds": 1})

    places.take("dropped", Place("sounds", False))

    assert not places.free(Place("sounds", False))
    assert places.free_beside([], Place("sounds", False))
    assert not places.free_beside(["dropped"], Place("sounds", False))


def test_there_is_no_place_of_a_kind_that_is_not_named() -> None:
    assert not JobPlaces({"sounds": 1}).free(Place("answers", False))


@pytest.mark.parametrize(
    ("limits", "most", "expected"),
    [
        (EngineLimits(clips=8, chats=16), 16, {"sounds": 16, "answers": 16}),
        (EngineLimits(clips=8, chats=16), 1, {"sounds": 1, "answers": 1}),
        (EngineLimits(clips=1, chats=2), 16, {"sounds": 2, "answers": 4}),
        # A job that this worker cannot do is taken all the same, and refused.
        (EngineLimits(speeches=4), 16, {"sounds": 5, "answers": 1}),
        (EngineLimits(chats=4), 16, {"sounds": 1, "answers": 8}),
    ],
)
def test_jobs_are_held_by_what_the_engine_does_at_once(
    limits: EngineLimits, most: int, expected: dict[JobKind, int]
) -> None:
    assert worth_holding(limits, most) == expected
