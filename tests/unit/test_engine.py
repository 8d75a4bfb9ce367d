"""The engine's promises, with a runner that counts instead of a model."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from omnifleet_shared.errors import DeadlineExceeded, EngineStopped, JobCancelled, JobFailed, OutOfMemory
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.observer import Work
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.models.chat import Chat

CHAT = Chat(system="", user="")


class CountingRunner:
    """Counts steps, and fails on order."""

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []
        self.released: list[Request] = []
        self.poisonous: list[Request] = []
        self.most_at_once = 100
        self.unprepared: Exception | None = None

    def prepare(self, request: Request) -> None:
        if self.unprepared is not None:
            raise self.unprepared

    def advance(self, batch: Sequence[Request]) -> None:
        if any(one in self.poisonous for one in batch):
            raise ValueError("poison")
        if len(batch) > self.most_at_once:
            raise OutOfMemory("too many")
        self.batches.append(list(batch))
        for one in batch:
            one.step += 1

    def is_done(self, request: Request) -> bool:
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        return [f"{one.kind} after {one.step}" for one in batch]

    def release(self, request: Request) -> None:
        self.released.append(request)


def clip(steps: int = 3, **fields: Any) -> Request:
    inputs = DiffusionInputs(prompt=CHAT, steps=steps, guidance=7.0, seed=1)
    return Request(inputs=inputs, **fields)


def answer(tokens: int = 3) -> Request:
    return Request(inputs=ChatInputs(chat=CHAT, max_new_tokens=tokens, temperature=0, seed=0))


@pytest.fixture
def runner() -> CountingRunner:
    return CountingRunner()


def engine_with(runner: CountingRunner, *requests: Request, places: int = 8) -> Engine:
    engine = Engine(runner, max_active=places)
    for request in requests:
        engine.submit(request)
    return engine


def run_dry(engine: Engine) -> None:
    for _ in range(100):
        if not engine.step():
            return
    raise AssertionError("the engine does not come to an end")


def test_requests_share_a_step_as_one_batch(runner: CountingRunner) -> None:
    requests = [clip(), clip(), clip()]
    engine = engine_with(runner, *requests)

    engine.step()

    assert runner.batches == [requests]


def test_a_late_request_joins_at_the_next_step_and_nobody_waits_for_another_to_end(runner: CountingRunner) -> None:
    long, short = clip(steps=5), clip(steps=2)
    engine = engine_with(runner, long)
    engine.step()

    engine.submit(short)
    engine.step()
    engine.step()

    assert runner.batches == [[long], [long, short], [long, short]]
    assert short.outcome.done()
    assert not long.outcome.done()


def test_answers_and_clips_advance_in_the_same_step_as_batches_of_their_own(runner: CountingRunner) -> None:
    one_clip, one_answer = clip(), answer()
    engine = engine_with(runner, one_clip, one_answer)

    run_dry(engine)

    assert runner.batches == [[one_clip], [one_answer]] * 3
    assert one_clip.outcome.result() == "diffusion after 3"
    assert one_answer.outcome.result() == "chat after 3"


def test_the_one_that_fails_fails_alone(runner: CountingRunner) -> None:
    requests = [clip() for _ in range(5)]
    runner.poisonous = [requests[2]]
    engine = engine_with(runner, *requests)

    run_dry(engine)

    with pytest.raises(JobFailed, match="ValueError: poison"):
        requests[2].outcome.result()
    assert [one.outcome.result() for one in requests if one is not requests[2]] == ["diffusion after 3"] * 4


def test_a_batch_that_is_too_big_for_the_memory_is_done_in_parts(runner: CountingRunner) -> None:
    requests = [clip() for _ in range(4)]
    runner.most_at_once = 2
    engine = engine_with(runner, *requests)

    run_dry(engine)

    assert [one.outcome.result() for one in requests] == ["diffusion after 3"] * 4


def test_a_request_that_cannot_be_prepared_fails_with_its_own_error(runner: CountingRunner) -> None:
    request = clip()
    runner.unprepared = OutOfMemory("full")
    engine = engine_with(runner, request)

    run_dry(engine)

    with pytest.raises(OutOfMemory):
        request.outcome.result()


@pytest.mark.parametrize("steps_before", [0, 1])
def test_a_cancelled_request_ends_at_the_next_step_waiting_or_active(runner: CountingRunner, steps_before: int) -> None:
    request, mate = clip(), clip()
    engine = engine_with(runner, request, mate)
    for _ in range(steps_before):
        engine.step()

    request.cancel()
    run_dry(engine)

    assert request.step == steps_before
    with pytest.raises(JobCancelled):
        request.outcome.result()
    assert mate.outcome.result() == "diffusion after 3"


def test_a_request_past_its_deadline_takes_no_further_step(runner: CountingRunner) -> None:
    request = clip(deadline=time.time() - 1)
    engine = engine_with(runner, request)

    run_dry(engine)

    assert request.step == 0
    with pytest.raises(DeadlineExceeded, match="step 0 of 3"):
        request.outcome.result()


def test_every_request_is_released_once_however_it_ends(runner: CountingRunner) -> None:
    done, cancelled, poisonous = clip(), clip(), clip()
    runner.poisonous = [poisonous]
    cancelled.cancel()
    engine = engine_with(runner, done, cancelled, poisonous)

    run_dry(engine)

    assert len(runner.released) == 3
    assert {id(one) for one in runner.released} == {id(done), id(cancelled), id(poisonous)}


def test_on_its_thread_it_takes_requests_as_they_come(runner: CountingRunner) -> None:
    engine = engine_with(runner)
    engine.start()
    try:
        assert engine.submit(clip()).outcome.result(timeout=10) == "diffusion after 3"
        assert engine.submit(answer()).outcome.result(timeout=10) == "chat after 3"
    finally:
        engine.stop()


def test_stopping_fails_what_is_in_it_as_transient_and_takes_nothing_more(runner: CountingRunner) -> None:
    waiting = clip()
    engine = engine_with(runner, waiting)

    engine.stop()

    with pytest.raises(EngineStopped):
        waiting.outcome.result()
    with pytest.raises(EngineStopped):
        engine.submit(clip())


def test_an_engine_that_fails_between_steps_fails_its_requests_as_transient_and_goes_on(
    runner: CountingRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_with(runner)
    monkeypatch.setattr(runner, "is_done", lambda request: 1 / 0)
    engine.start()
    try:
        with pytest.raises(EngineStopped):
            engine.submit(clip()).outcome.result(timeout=10)
        monkeypatch.undo()
        assert engine.submit(clip()).outcome.result(timeout=10) == "diffusion after 3"
    finally:
        engine.stop()


class Witness:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.failures: list[tuple[str, int, str]] = []

    def worked(self, work: Work, requests: int, seconds: float) -> None:
        assert seconds >= 0
        self.done.append((work, requests))

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        self.failures.append((work, requests, type(error).__name__))


def test_an_observer_hears_of_every_call_of_the_model_and_of_every_failure(runner: CountingRunner) -> None:
    witness = Witness()
    engine = Engine(runner, max_active=8, observer=witness)
    good, poisonous = engine.submit(clip(steps=1)), engine.submit(clip(steps=1))
    runner.poisonous = [poisonous]

    run_dry(engine)

    assert good.outcome.exception() is None
    assert witness.done == [("prepare", 1), ("prepare", 1), ("diffusion", 1), ("finish", 1)]
    assert witness.failures == [("diffusion", 2, "ValueError"), ("diffusion", 1, "ValueError")]
