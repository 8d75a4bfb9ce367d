"""One attempt at one job: what it counts, and how it ends when nobody wants it any more."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
import pytest
from omnifleet_shared.errors import DeadlineExceeded, EngineStopped, JobCancelled, OutOfMemory
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import Progress
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.jobs import job_context as run_module
from omnifleet_worker.jobs.job_context import LOGGED_AS, JobContext, Stage
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.observability.log_context import Stage as LoggedStage

CHAT = Chat(system="", user="")
Act = Callable[[Request], None]


def answer(request: Request) -> None:
    request.outcome.set_result("an answer")


def refuse(request: Request) -> None:
    refusal = request.refusal(datetime.now(UTC).timestamp())
    assert refusal is not None
    request.outcome.set_exception(refusal)


class FakeEngine:
    """Does with a request what it was told to, before `submit` returns."""

    def __init__(self, act: Act = answer) -> None:
        self.act = act
        self.requests: list[Request] = []
        self.step_seconds = 0.0

    def least_seconds(self, kind: str, steps: int) -> float:
        assert kind == "diffusion"
        return steps * self.step_seconds

    def submit(self, request: Request) -> Request:
        self.requests.append(request)
        self.act(request)
        return request


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def run_of(engine: FakeEngine, namespace: str = "understand", **fields: Any) -> JobContext:
    task = {"name": "question", "text": "?"} if namespace == "understand" else {"name": "t2a", "text": "rain"}
    job = read_job({"schema_version": 1, "namespace": namespace, "task": task, **fields})
    return JobContext(job, cast(Engine, engine))


def test_every_stage_counts_its_time_also_where_it_fails(engine: FakeEngine, clock: Clock) -> None:
    run = run_of(engine)

    for _ in range(2):
        with run.stage("fetched"):
            clock.now += 1.5
    with pytest.raises(ValueError, match="broken"), run.stage("decoded"):
        clock.now += 2.0
        raise ValueError("broken")

    assert (run.timings.fetched, run.timings.decoded, run.timings.stored) == (3.0, 2.0, 0.0)


@pytest.mark.parametrize("stage", get_args(Stage))
def test_every_stage_has_a_name_in_the_log(stage: Stage) -> None:
    assert LOGGED_AS[stage] in get_args(LoggedStage)


def test_time_in_the_engine_is_split_where_the_first_step_could_begin(engine: FakeEngine, clock: Clock) -> None:
    def sample(request: Request) -> None:
        request.submitted_at = clock.now
        clock.now += 3.0
        request.started_at = clock.now
        clock.now += 4.0
        answer(request)

    engine.act = sample
    run = run_of(engine)

    run.ask(CHAT)
    run.ask(CHAT)

    assert (run.timings.conditioned, run.timings.sampled) == (6.0, 8.0)


def test_the_device_s_time_of_all_requests_is_the_job_s_also_of_one_that_fails(engine: FakeEngine) -> None:
    def spend(request: Request) -> None:
        request.device_seconds = 1.5
        answer(request)

    def fail(request: Request) -> None:
        request.device_seconds = 0.5
        request.outcome.set_exception(OutOfMemory("full"))

    run = run_of(engine)
    engine.act = spend
    run.ask(CHAT)
    engine.act = fail
    with pytest.raises(OutOfMemory):
        run.ask(CHAT)

    assert run.gpu_seconds == 2.0


def test_a_request_that_never_started_has_waited_all_its_time(engine: FakeEngine, clock: Clock) -> None:
    def fail(request: Request) -> None:
        request.submitted_at = clock.now
        clock.now += 3.0
        request.outcome.set_exception(OutOfMemory("full"))

    engine.act = fail
    run = run_of(engine)

    with pytest.raises(OutOfMemory):
        run.ask(CHAT)

    assert (run.timings.conditioned, run.timings.sampled) == (3.0, 0.0)


@pytest.mark.parametrize(("minutes", "queued"), [(-1, 60.0), (1, 0.0)])
def test_time_in_the_queue_is_never_negative_whatever_the_clocks_say(
    engine: FakeEngine, minutes: int, queued: float
) -> None:
    run = run_of(engine, submitted_at=datetime.now(UTC) + timedelta(minutes=minutes))

    assert run.timings.queued == pytest.approx(queued, abs=30)


def test_an_answer_is_asked_for_as_the_job_says(engine: FakeEngine) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=1)
    run = run_of(engine, temperature=0.5, seed=3, priority="batch", deadline=deadline)

    assert run.ask(CHAT, 7) == "an answer"

    (request,) = engine.requests
    assert request.inputs == ChatInputs(chat=CHAT, max_new_tokens=7, temperature=0.5, seed=3)
    assert (request.priority, request.deadline) == ("batch", pytest.approx(deadline.timestamp()))


def test_a_clip_is_asked_for_as_the_job_says(engine: FakeEngine) -> None:
    run = run_of(engine, "generate", steps=5, guidance=2.0, seed=3)
    wave = np.zeros(4, np.float32)

    run.sample(CHAT, speech="Hello", audio=wave)

    (request,) = engine.requests
    assert request.inputs == DiffusionInputs(prompt=CHAT, speech="Hello", audio=wave, steps=5, guidance=2.0, seed=3)
    assert (request.priority, request.deadline) == ("interactive", None)


def test_a_clip_job_transcribes_without_chance(engine: FakeEngine) -> None:
    run = run_of(engine, "generate")

    run.ask(CHAT)

    inputs = engine.requests[0].inputs
    assert isinstance(inputs, ChatInputs)
    assert inputs.temperature == 0


def test_cancelled_before_it_starts_nothing_more(engine: FakeEngine) -> None:
    run = run_of(engine)

    run.cancel()

    with pytest.raises(JobCancelled), run.stage("fetched"):
        pytest.fail("the stage was entered")
    with pytest.raises(JobCancelled):
        run.ask(CHAT)
    assert engine.requests == []


def test_cancelled_while_it_is_in_the_engine_it_ends_there(engine: FakeEngine) -> None:
    run = run_of(engine)

    def cancel_and_refuse(request: Request) -> None:
        run.cancel()
        refuse(request)

    engine.act = cancel_and_refuse

    with pytest.raises(JobCancelled):
        run.ask(CHAT)


def test_cancelled_just_as_the_request_is_made_it_still_reaches_the_engine(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(engine)
    engine.act = refuse
    monkeypatch.setattr(run, "raise_if_cancelled", lambda: run.cancel())

    with pytest.raises(JobCancelled):
        run.ask(CHAT)


def test_cancelled_after_an_answer_the_answer_stands_and_the_next_stage_does_not_begin(engine: FakeEngine) -> None:
    run = run_of(engine)

    said = run.ask(CHAT)
    run.cancel()

    assert said == "an answer"
    with pytest.raises(JobCancelled), run.stage("stored"):
        pytest.fail("the stage was entered")


def test_the_reason_of_a_cancellation_is_what_is_raised(engine: FakeEngine) -> None:
    run = run_of(engine)

    run.cancel(EngineStopped("the worker shuts down"))

    with pytest.raises(EngineStopped, match="shuts down"):
        run.ask(CHAT)


def test_past_its_deadline_nothing_more_is_started(engine: FakeEngine) -> None:
    run = run_of(engine, deadline=datetime.now(UTC) - timedelta(seconds=1))

    with pytest.raises(DeadlineExceeded) as caught:
        run.ask(CHAT)

    assert caught.value.field == "deadline"
    assert engine.requests == []


def test_what_is_asked_on_the_way_to_a_clip_is_no_progress(engine: FakeEngine) -> None:
    run = run_of(engine, "generate", steps=9)
    before = run.progress()

    run.ask(CHAT, 5)
    of_answer = run.progress()
    run.sample(CHAT)
    of_clip = run.progress()

    assert before == of_answer == Progress()
    assert (of_clip.step, of_clip.steps) == (0, 9)


@pytest.mark.parametrize(("step_seconds", "in_time"), [(0.0, True), (0.5, True), (1.0, False)])
def test_a_clip_whose_steps_cannot_be_done_in_time_is_refused_before_anything_is_fetched(
    engine: FakeEngine, step_seconds: float, in_time: bool
) -> None:
    engine.step_seconds = step_seconds
    run = run_of(engine, "generate", steps=100, deadline=(datetime.now(UTC) + timedelta(seconds=60)).isoformat())

    with nullcontext() if in_time else pytest.raises(DeadlineExceeded, match=r"100 steps take 100\.0 s at least"):
        run.raise_if_too_late()


def test_a_fast_clip_takes_fewer_steps_of_the_other_solver(engine: FakeEngine) -> None:
    for quality in ("exact", "fast"):
        version = {"schema_version": 1 if quality == "exact" else 2}
        with suppress(TypeError):  # the fake's answer is no clip
            run_of(engine, "generate", quality=quality, **version).sample(Chat("", ""))

    asked = [cast(DiffusionInputs, request.inputs) for request in engine.requests]
    assert [(inputs.steps, inputs.solver) for inputs in asked] == [(100, "euler"), (25, "multistep")]
