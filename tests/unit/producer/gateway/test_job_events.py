"""How far a reader of a job's events has come, as the ids of events tell it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet.gateway.jobs.job_events import OUTCOME, Place

COUNTS = st.integers(0, 10**9 - 1)
PROGRESS = st.builds("{}-{}-{}".format, st.sampled_from(["queued", "running", "retrying"]), COUNTS, COUNTS)
NO_PLACES = [None, "", OUTCOME, "1", "-1.running-1-2", "1.running-1", "9" * 30, "٣.running-1-2"]


@given(COUNTS, PROGRESS | st.just(""))
def test_a_place_is_read_as_it_was_named(parts: int, progress: str) -> None:
    place = Place(parts, progress)

    assert Place.read(str(place)) == place


def test_ids_of_gateways_that_knew_no_parts_are_read_too() -> None:
    assert Place.read("running-3-100") == Place(0, "running-3-100")


@pytest.mark.parametrize("event_id", NO_PLACES)
def test_what_names_no_place_is_the_beginning(event_id: str | None) -> None:
    assert Place.read(event_id) == Place()


@given(st.text(max_size=60))
def test_whatever_a_caller_sends_is_a_place(event_id: str) -> None:
    assert Place.read(event_id).parts >= 0
