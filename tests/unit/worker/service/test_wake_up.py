"""What wakes a worker's loop from other threads."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest
from omnifleet_worker.service.consumer import WakeUp


@pytest.fixture
def wake_up() -> Iterator[WakeUp]:
    wake_up = WakeUp()
    with wake_up.reader, wake_up.writer:
        yield wake_up


def is_readable(wake_up: WakeUp) -> bool:
    return bool(select.select([wake_up.reader], [], [], 0)[0])


def test_a_loop_turns_once_for_however_many_calls(wake_up: WakeUp) -> None:
    assert not is_readable(wake_up)

    for _ in range(3):
        wake_up.set()

    assert is_readable(wake_up)
    wake_up.clear()
    assert not is_readable(wake_up)
    wake_up.clear()


def test_more_calls_than_its_buffer_holds_neither_wait_nor_fail(wake_up: WakeUp) -> None:
    for _ in range(100_000):
        wake_up.set()

    assert is_readable(wake_up)
