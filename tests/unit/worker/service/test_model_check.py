"""Whose fault an unforeseen error is, found out by asking the model itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from omnifleet_shared.errors import JobFailed, OutOfMemory
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.audio_omni import PROBES
from omnifleet_worker.lease_renewer import EXIT_BROKEN
from omnifleet_worker.service.availability import Availability
from omnifleet_worker.service.model_check import FAILURES, ModelCheck


class Model:
    """Raises what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0

    def prepare(self, request: Request) -> None:
        self.asked += 1
        if self.error is not None:
            raise self.error

    def advance(self, batch: Sequence[Request]) -> None:
        for request in batch:
            request.step += 1

    def is_done(self, request: Request) -> bool:
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        return ["fine"] * len(batch)

    def release(self, request: Request) -> None:
        pass


class Stage:
    """A check of a model, and what becomes of the worker."""

    def __init__(self, engine: Engine, model: Model) -> None:
        self.model = model
        self.out_of_service: list[tuple[str, int]] = []
        self.availability = SimpleNamespace(reason=None, take_out_of_service=self._take_out)
        self.check = ModelCheck(engine, cast(Availability, self.availability), PROBES)

    def _take_out(self, reason: str, *, exit_code: int) -> None:
        self.availability.reason = reason
        self.out_of_service.append((reason, exit_code))

    def fails(self, job: str, problem: str = "the model failed with ValueError: no such row") -> bool:
        return self.check.is_workers_fault(job, JobFailed(problem))


@pytest.fixture
def stage() -> Iterator[Stage]:
    model = Model()
    engine = Engine(model, EngineLimits(clips=2, chats=2))
    engine.start()
    yield Stage(engine, model)
    engine.stop()


def test_a_model_that_fails_job_after_job_and_its_own_probe_ends_the_worker(stage: Stage) -> None:
    stage.model.error = ValueError("no such row: 17")

    found = [stage.fails(f"job {number}", f"ValueError: no such row: {number}") for number in range(FAILURES)]

    assert found == [False] * (FAILURES - 1) + [True]
    ((reason, exit_code),) = stage.out_of_service
    assert reason == "3 jobs in a row failed, and its own probe did: the model failed with ValueError: no such row: 17"
    assert exit_code == EXIT_BROKEN
    assert stage.check.failed_in_a_row == FAILURES
    assert stage.fails("the next")  # is the worker's fault from now on, whatever it is
    assert len(stage.out_of_service) == 1


def test_where_the_model_works_the_jobs_are_at_fault_and_are_counted_anew(stage: Stage) -> None:
    assert [stage.fails(f"job {number}") for number in range(2 * FAILURES)] == [False] * 2 * FAILURES

    assert stage.model.asked == 2 * 2  # a clip and an answer, twice
    assert stage.out_of_service == []
    assert stage.check.failed_in_a_row == 0


def test_a_success_another_error_or_the_same_job_again_are_no_row(stage: Stage) -> None:
    stage.model.error = ValueError("no such row")

    for number in range(FAILURES - 1):
        stage.fails(f"job {number}")
    stage.check.succeeded()
    for _ in range(FAILURES):
        stage.fails("the same job")
    for number in range(FAILURES):
        stage.fails(f"job {number}", f"KeyError: {'x' * number}")

    assert stage.model.asked == 0
    assert stage.out_of_service == []


def test_a_probe_for_which_there_is_no_memory_tells_nothing(stage: Stage) -> None:
    stage.model.error = OutOfMemory("full")

    assert not any(stage.fails(f"job {number}") for number in range(FAILURES))

    assert stage.out_of_service == []
