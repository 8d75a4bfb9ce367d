"""What is tried again and what is not; waits between attempts grow, and differ from one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import DiskFull, StorageUnavailable
from omnifleet_worker.retry import backoff_seconds, retry_until


@given(attempt=st.integers(1, 100), first=st.floats(0.01, 1000), longest=st.floats(0.01, 1000))
def test_the_wait_doubles_within_half_and_all_of_it_up_to_a_limit(attempt: int, first: float, longest: float) -> None:
    whole = min(longest, first * 2 ** (attempt - 1))

    wait = backoff_seconds(attempt, first, longest)

    assert whole / 2 <= wait <= whole


def test_a_full_disk_is_not_waited_for_as_a_storage_that_is_away_is() -> None:
    errors = iter([StorageUnavailable("away"), DiskFull("no room")])

    def put() -> None:
        raise next(errors)

    with pytest.raises(DiskFull):
        retry_until(put, StorageUnavailable, 60, give_up_on=(DiskFull,))
