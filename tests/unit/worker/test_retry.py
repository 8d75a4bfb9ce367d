"""Waits between attempts grow, and differ from one another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from omnifleet_worker.retry import backoff_seconds


@given(attempt=st.integers(1, 100), first=st.floats(0.01, 1000), longest=st.floats(0.01, 1000))
def test_the_wait_doubles_within_half_and_all_of_it_up_to_a_limit(attempt: int, first: float, longest: float) -> None:
    whole = min(longest, first * 2 ** (attempt - 1))

    wait = backoff_seconds(attempt, first, longest)

    assert whole / 2 <= wait <= whole
