"""The engine's promises, with a runner that counts instead of a model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from omnifleet_shared.errors import (
    DeadlineExceeded,
    DeviceFailed,
    EngineStopped,
    JobCancelled,
    JobFailed,
    OutOfMemory,
)
from omnifleet_worker.engine import engine as engine_module
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.observer import Work
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.models.audio_omni.chat import Chat
from support.services import wait_until

CHAT = Chat(system="", user="")


class CountingRunner:
    """Counts steps, and fails on order."""

    def __init__(self) -> None:
        self.batches: list[list[Request]] = []
        self.released: list[Request] = []
        self.poisonous: list[Request] = []
        self.most_at_once = 100
        self.unprepared: Exception | None = None
        self.memory = 1000
        self.holding: dict[Request, int] = {}
        self.on_prepare: Callable[[Request], object] = lambda request: None
        self.on_finish: Callable[[Sequence[Request]], object] = lambda batch: None

    def prepare(self, request: Request) -> None:
        self.on_prepare(request)
        if self.unprepared is not None:
            raise self.unprepared
        if sum(self.holding.values()) + request.cost > self.memory:
            raise OutOfMemory("no memory to prepare")
        self.holding[request] = request.cost

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
        self.on_finish(batch)
        return [f"{one.kind} after {one.step}" for one in batch]

    def release(self, request: Request) -> None:
        self.released.append(request)
        self.holding.pop(request, None)


def clip(steps: int = 3, **fields: Any) -> Request:
    inputs = DiffusionInputs(prompt=CHAT, steps=steps, guidance=7.0, seed=1)
    return Request(inputs=inputs, **fields)


def answer(tokens: int = 3) -> Request:
    return Request(inputs=ChatInputs(chat=CHAT, max_new_tokens=tokens, temperature=0, seed=0))


@pytest.fixture
def runner() -> CountingRunner:
    return CountingRunner()


def engine_with(runner: CountingRunner, *requests: Request, places: int = 8) -> Engine:
    engine = Engine(runner, EngineLimits(clips=places, chats=places, decoded=places))
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


def test_answers_and_clips_advance_as_batches_of_their_own(runner: CountingRunner) -> None:
    one_clip, one_answer = clip(), answer()
    engine = engine_with(runner, one_clip, one_answer)

    run_dry(engine)

    assert sorted(runner.batches, key=lambda batch: batch[0].kind) == [[one_answer]] * 3 + [[one_clip]] * 3
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


def test_after_memory_ran_out_fewer_share_a_step_without_failing_again(runner: CountingRunner) -> None:
    requests = [clip(steps=4) for _ in range(4)]
    runner.most_at_once = 2
    witness = Witness()
    engine = Engine(runner, EngineLimits(clips=4, chats=4), observer=witness)
    for request in requests:
        engine.submit(request)

    run_dry(engine)

    assert [size for work, size, _ in witness.failures if work == "diffusion"] == [4]
    assert [len(batch) for batch in runner.batches] == [2, 2] * 4


def test_a_request_without_memory_to_be_prepared_waits_for_another_to_leave(runner: CountingRunner) -> None:
    first, second = clip(cost=600), clip(cost=600)
    engine = engine_with(runner, first, second)

    run_dry(engine)

    assert [one.outcome.result() for one in (first, second)] == ["diffusion after 3"] * 2
    assert runner.batches == [[first]] * 3 + [[second]] * 3
    assert runner.holding == {}


def test_a_clip_without_memory_to_step_is_parked_with_its_steps_and_the_others_go_on(runner: CountingRunner) -> None:
    large, small = clip(steps=4), clip(steps=2)
    engine = engine_with(runner, large, small)
    engine.step()
    advance = runner.advance

    def too_large(batch: Sequence[Request]) -> None:
        if large in batch and not small.outcome.done():
            raise OutOfMemory("full")
        advance(batch)

    runner.advance = too_large  # type: ignore[method-assign]
    run_dry(engine)

    assert small.outcome.result() == "diffusion after 2"
    assert large.outcome.result() == "diffusion after 4"
    assert runner.batches == [[large, small], [small], [large], [large], [large]]


def test_a_clip_without_memory_to_be_decoded_is_decoded_when_another_has_left(runner: CountingRunner) -> None:
    first, second = clip(steps=1), clip(steps=3)

    def full(batch: Sequence[Request]) -> None:
        if first in batch and not second.outcome.done():
            raise OutOfMemory("full")

    runner.on_finish = full
    engine = engine_with(runner, first, second)

    run_dry(engine)

    assert [one.outcome.result() for one in (first, second)] == ["diffusion after 1", "diffusion after 3"]


def test_a_request_for_which_memory_does_not_suffice_alone_fails_as_transient(runner: CountingRunner) -> None:
    request = clip(cost=2000)
    engine = engine_with(runner, request)

    run_dry(engine)

    with pytest.raises(OutOfMemory):
        request.outcome.result()
    assert runner.released == [request]


def test_a_request_that_waits_for_memory_can_be_cancelled(runner: CountingRunner) -> None:
    first, second = clip(steps=3, cost=600), clip(cost=600)
    engine = engine_with(runner, first, second)
    engine.step()

    second.cancel()
    run_dry(engine)

    assert first.outcome.result() == "diffusion after 3"
    with pytest.raises(JobCancelled):
        second.outcome.result()
    assert sorted(map(id, runner.released)) == sorted(map(id, (first, second)))


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


def test_a_request_that_cannot_make_its_deadline_is_refused_before_it_costs_anything(runner: CountingRunner) -> None:
    prepared: list[Request] = []
    runner.on_prepare = prepared.append
    engine = engine_with(runner, clip(steps=2))
    advance = runner.advance
    runner.advance = lambda batch: [time.sleep(0.01), advance(batch)][1]  # type: ignore[method-assign, func-returns-value]
    run_dry(engine)
    prepared.clear()

    hopeless, in_time = clip(steps=100_000, deadline=time.time() + 600), clip(steps=2, deadline=time.time() + 600)
    for request in (hopeless, in_time):
        engine.submit(request)
    run_dry(engine)

    assert prepared == [in_time]
    assert in_time.outcome.result() == "diffusion after 2"
    with pytest.raises(DeadlineExceeded, match=r"100000 of 100000 steps are left, which take [1-9]\d{3,}"):
        hopeless.outcome.result()


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
        assert engine.submit(clip()).outcome.result(timeout=60) == "diffusion after 3"
        assert engine.submit(answer()).outcome.result(timeout=60) == "chat after 3"
    finally:
        engine.stop()


def test_a_request_that_is_held_takes_no_step_until_it_is_allowed_to(runner: CountingRunner) -> None:
    held, free = clip(), clip()
    held.may_reach = 1
    engine = engine_with(runner, held, free)

    while not free.outcome.done():
        engine.step()

    assert (held.step, held.outcome.done()) == (1, False)
    held.allow(3)  # as far as it goes: what is done is no longer held
    run_dry(engine)
    assert held.outcome.done()
    assert runner.batches[-2:] == [[held], [held]]


def test_an_engine_that_waits_is_woken_by_a_request_that_may_go_on(
    runner: CountingRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "IDLE_WAIT", 60.0)
    held, engine = clip(), engine_with(runner)
    held.may_reach = 0
    engine.start()
    try:
        engine.submit(held)
        wait_until(lambda: held.started_at is not None, what="it is prepared")

        held.allow(None)

        assert held.outcome.result(10) is not None
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
            engine.submit(clip()).outcome.result(timeout=60)
        monkeypatch.undo()
        assert engine.submit(clip()).outcome.result(timeout=60) == "diffusion after 3"
    finally:
        engine.stop()


class Witness:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int]] = []
        self.device_seconds = 0.0
        self.failures: list[tuple[str, int, str]] = []

    def worked(self, work: Work, requests: int, seconds: float, device_seconds: float) -> None:
        assert seconds >= 0 and device_seconds >= 0
        self.done.append((work, requests))
        self.device_seconds += device_seconds

    def hosted(self, seconds: float) -> None:
        assert seconds >= 0

    def failed(self, work: Work, requests: int, error: Exception) -> None:
        self.failures.append((work, requests, type(error).__name__))


def test_an_observer_hears_of_every_call_of_the_model_and_of_every_failure(runner: CountingRunner) -> None:
    witness = Witness()
    engine = Engine(runner, EngineLimits(clips=8, chats=8), observer=witness)
    good, poisonous = engine.submit(clip(steps=1)), engine.submit(clip(steps=1))
    runner.poisonous = [poisonous]

    run_dry(engine)

    assert good.outcome.exception() is None
    assert witness.done == [("prepare", 1), ("prepare", 1), ("diffusion", 1), ("finish", 1)]
    assert witness.failures == [("diffusion", 2, "ValueError"), ("diffusion", 1, "ValueError")]


def test_requests_share_the_device_s_time_between_them(runner: CountingRunner) -> None:
    witness = Witness()
    engine = Engine(runner, EngineLimits(clips=8, chats=8), observer=witness)
    long, short = engine.submit(clip(steps=9)), engine.submit(clip(steps=2))
    runner.on_finish = lambda batch: time.sleep(0.01)

    run_dry(engine)

    assert long.device_seconds > 0.01 and short.device_seconds > 0.01
    assert long.device_seconds + short.device_seconds == pytest.approx(witness.device_seconds)


def test_clips_go_on_stepping_while_another_is_prepared_and_one_is_decoded(runner: CountingRunner) -> None:
    running, coming, done = clip(steps=10**6), clip(), clip(steps=1)
    stepped = threading.Event()
    stages: list[str] = []

    def wait_for_steps(stage: str) -> None:
        before = running.step
        while running.step < before + 3:
            stepped.wait(0.01)
        stages.append(stage)

    runner.on_prepare = lambda request: wait_for_steps("prepared") if request is coming else None
    runner.on_finish = lambda batch: wait_for_steps("decoded") if done in batch else None
    engine = engine_with(runner, running)
    engine.start()
    try:
        engine.submit(coming).outcome.result(timeout=60)
        engine.submit(done).outcome.result(timeout=60)
        assert not running.outcome.done()
    finally:
        engine.stop()

    assert stages == ["prepared", "decoded"]


def test_what_is_done_at_once_is_decoded_at_once_as_far_as_memory_allows(runner: CountingRunner) -> None:
    decoded: list[int] = []
    runner.on_finish = lambda batch: decoded.append(len(batch))
    engine = Engine(runner, EngineLimits(clips=8, chats=8, decoded=3))
    for _ in range(7):
        engine.submit(clip())

    run_dry(engine)

    assert decoded == [3, 3, 1]


def test_a_request_cancelled_while_it_is_prepared_is_answered_at_once_and_released_after(
    runner: CountingRunner,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    runner.on_prepare = lambda request: (begun.set(), go_on.wait(60))
    engine = engine_with(runner)
    engine.start()
    try:
        request = engine.submit(clip())
        assert begun.wait(60)
        request.cancel()
        with pytest.raises(JobCancelled):
            request.outcome.result(timeout=60)
        assert runner.released == []
    finally:
        go_on.set()
        engine.stop()

    assert runner.released == [request]
    assert runner.batches == []


def test_a_hung_conditioning_counts_as_a_stalled_engine(runner: CountingRunner) -> None:
    begun, go_on = threading.Event(), threading.Event()
    runner.on_prepare = lambda request: (begun.set(), go_on.wait(60))
    engine = engine_with(runner)
    engine.start()
    try:
        engine.submit(clip())
        assert begun.wait(60)
        first = engine.stalled_seconds
        while engine.stalled_seconds <= first:
            go_on.wait(0.01)
    finally:
        go_on.set()
        engine.stop()


class Launched:
    """A step that the device has not taken before it is told to."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.done = False

    def wait(self) -> float:
        if self._device.fault is not None:
            raise self._device.fault
        self._device.wait_for(self)
        return 0.5


class Device(CountingRunner):
    """Launches steps of clips, and takes the oldest one when the engine waits."""

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[Launched] = []
        self.most_launched = 0
        self.fault: Exception | None = None

    def advance(self, batch: Sequence[Request]) -> Launched | None:  # type: ignore[override]
        super().advance(batch)
        if batch[0].kind == "chat":
            return None
        step = Launched(self)
        self.launched.append(step)
        self.most_launched = max(self.most_launched, self.in_flight)
        return step

    @property
    def in_flight(self) -> int:
        return sum(not step.done for step in self.launched)

    def wait_for(self, step: Launched) -> None:
        for one in self.launched[: self.launched.index(step) + 1]:
            one.done = True


def test_a_step_is_launched_while_the_device_takes_the_one_before_and_no_further_one() -> None:
    device = Device()
    engine = engine_with(device, clip(steps=9))

    in_flight = []
    for _ in range(4):
        engine.step()
        in_flight.append(device.in_flight)

    assert in_flight == [1, 2, 2, 2]


def test_what_was_launched_counts_once_the_device_has_taken_it() -> None:
    device, witness = Device(), Witness()
    engine = Engine(device, EngineLimits(clips=8, chats=8), observer=witness)
    request = engine.submit(clip(steps=2))

    engine.step()
    counted = list(witness.done)
    run_dry(engine)

    assert counted == [("prepare", 1)]
    assert sorted(witness.done) == [("diffusion", 1), ("diffusion", 1), ("finish", 1), ("prepare", 1)]
    assert request.outcome.result() == "diffusion after 2"
    assert engine.least_seconds("diffusion", 4) == 2.0


def test_a_cancelled_clip_takes_at_most_the_step_that_is_launched() -> None:
    device = Device()
    request = clip(steps=9)
    engine = engine_with(device, request)
    engine.step()
    engine.step()

    request.cancel()
    run_dry(engine)

    assert request.step == 2
    assert isinstance(request.outcome.exception(), JobCancelled)
    assert device.in_flight == 0


def test_a_step_that_fails_late_fails_its_requests_once() -> None:
    device = Device()
    requests = [clip(steps=9), clip(steps=9)]
    engine = engine_with(device, *requests)
    engine.step()

    device.fault = RuntimeError("not foreseen")
    run_dry(engine)

    for request in requests:
        with pytest.raises(JobFailed, match="not foreseen"):
            request.outcome.result()
    assert sorted(map(id, device.released)) == sorted(map(id, requests))


BROKEN = "CUDA error: an illegal memory access was encountered\nIt might be reported late."


class BreakingDevice(CountingRunner):
    """Breaks for good in the call that is named."""

    def __init__(self, breaks_in: str) -> None:
        super().__init__()
        self.calls = 0
        self._breaks_in = breaks_in
        self._is_broken = False

    def _call(self, name: str) -> None:
        self._is_broken = self._is_broken or name == self._breaks_in
        if self._is_broken:
            self.calls += 1
            raise RuntimeError(BROKEN)

    def prepare(self, request: Request) -> None:
        self._call("prepare")
        super().prepare(request)

    def advance(self, batch: Sequence[Request]) -> None:
        self._call("advance")
        super().advance(batch)

    def is_done(self, request: Request) -> bool:
        self._call("is_done")
        return super().is_done(request)

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        self._call("finish")
        return super().finish(batch)

    def release(self, request: Request) -> None:
        self._call("release")
        super().release(request)


@pytest.mark.parametrize("call", ["prepare", "advance", "is_done", "finish", "release"])
def test_a_device_that_breaks_ends_the_engine_and_its_requests_with_it(call: str) -> None:
    device = BreakingDevice(call)
    told: list[tuple[DeviceFailed, bool]] = []
    engine = Engine(
        device,
        EngineLimits(clips=4, chats=4),
        on_device_failed=lambda error: told.append((error, all(one.outcome.done() for one in requests))),
    )
    requests = [engine.submit(clip(steps=1)) for _ in range(8)]

    engine.start()
    failures = [request.outcome.exception(timeout=300) for request in requests]

    failed = [error for error in failures if error is not None]
    assert failed  # but for what was done before a release
    assert {type(error) for error in failed} == {DeviceFailed}
    ((reason, were_answered),) = told
    assert reason.problem == "the device failed: CUDA error: an illegal memory access was encountered"
    assert not were_answered  # told first: whoever runs the jobs knows by then that they are handed back
    with pytest.raises(DeviceFailed, match="illegal memory access"):
        engine.submit(clip())
    engine.stop()
    assert device.calls <= 8  # and not one for each job that ever comes


def test_a_launched_step_that_finds_the_device_broken_ends_the_engine() -> None:
    device = Device()
    engine = engine_with(device, clip(steps=9), clip(steps=9))
    engine.step()

    device.fault = RuntimeError(BROKEN)
    run_dry(engine)

    with pytest.raises(DeviceFailed):
        engine.submit(clip())
    assert len(device.launched) == 2  # the one that failed, and the one that was launched meanwhile


def test_an_allocation_that_fails_in_a_library_is_out_of_memory(runner: CountingRunner) -> None:
    requests = [clip() for _ in range(4)]
    engine = engine_with(runner, *requests)
    advance = runner.advance

    def full(batch: Sequence[Request]) -> None:
        if len(batch) > 2:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        advance(batch)

    runner.advance = full  # type: ignore[method-assign]
    run_dry(engine)

    assert [one.outcome.result() for one in requests] == ["diffusion after 3"] * 4


def test_in_turns_no_token_is_written_before_the_device_has_taken_the_clips_step() -> None:
    device = Device()
    engine = engine_with(device, clip(steps=50), answer(tokens=10**6))
    for _ in range(12):
        engine.step()

    assert device.most_launched == 1
