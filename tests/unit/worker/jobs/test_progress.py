"""How far a job is, over several requests."""

from __future__ import annotations

import time

import pytest
from omnifleet_shared.schema.results import Progress
from omnifleet_worker.engine.request import DiffusionInputs, Request
from omnifleet_worker.jobs.progress import StepCount
from omnifleet_worker.models.audio_omni.chat import Chat


def request(step: int, steps: int = 10, started: float | None = None) -> Request:
    inputs = DiffusionInputs(prompt=Chat(system="", user=""), steps=steps, guidance=1, seed=0)
    started_at = None if started is None else time.monotonic() - started
    return Request(inputs=inputs, step=step, started_at=started_at)


def test_there_is_none_before_the_first_request() -> None:
    assert StepCount().progress() == Progress()


def test_requests_at_once_and_one_after_the_other_add_up() -> None:
    count = StepCount()
    count.expect(40)

    with count.counting([request(3), request(2)]):
        assert (count.progress().step, count.progress().steps) == (5, 40)
    with count.counting([request(10), request(9)]):
        assert (count.progress().step, count.progress().steps) == (24, 40)
    assert (count.progress().step, count.progress().steps) == (24, 40)


def test_what_was_not_expected_is_added_when_it_comes() -> None:
    count = StepCount()

    for _ in range(2):
        with count.counting([request(10)]):
            pass

    assert (count.progress().step, count.progress().steps) == (20, 20)


def test_it_tells_the_time_left_for_all_that_is_expected_at_the_pace_since_the_first_step() -> None:
    count = StepCount()
    count.expect(30)

    with count.counting([request(4, started=2.0), request(6, started=1.5)]):
        alone = count.progress().eta
    with count.counting([request(0)]):
        later = count.progress().eta

    assert alone == pytest.approx(4.0, rel=0.5)
    assert later == pytest.approx(4.0, rel=0.5)


def test_steps_of_an_earlier_attempt_count_and_say_nothing_of_the_pace() -> None:
    count = StepCount()
    count.expect(40)
    finished = request(20)
    finished.outcome.set_result(None)

    with count.counting([finished]):
        before = count.progress()
    with count.counting([request(10, started=10.0)]):
        after = count.progress()

    assert (before.step, before.steps, before.eta) == (20, 40, None)
    assert (after.step, after.eta) == (30, pytest.approx(10.0, rel=0.2))


def test_steps_that_failed_stay_counted() -> None:
    count = StepCount()

    with pytest.raises(ValueError, match="broken"), count.counting([request(4)]):
        raise ValueError("broken")

    assert count.progress().step == 4
