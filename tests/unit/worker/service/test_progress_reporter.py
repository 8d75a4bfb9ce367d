"""The monitor between jobs and Redis, with states that do as they are told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import cast

import pytest
from omnifleet_shared.errors import BrokerRefused, BrokerUnavailable, JobCancelled
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import Progress
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.service.progress_reporter import ProgressReporter


class FakeStates:
    """Keeps what is written, and raises the errors that lie ready, one a look."""

    def __init__(self) -> None:
        self.written: list[dict[str, Progress]] = []
        self.unwanted: set[str] = set()
        self.errors: list[Exception] = []
        self.wrote = threading.Event()

    def write_progress(self, reporter: dict[str, Progress]) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.written.append(reporter)
        self.wrote.set()

    def wait_for_cancel(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def cancelled(self, job_ids: Sequence[str]) -> set[str]:
        return self.unwanted & set(job_ids)


@pytest.fixture
def states() -> FakeStates:
    return FakeStates()


@pytest.fixture
def reporter(states: FakeStates) -> ProgressReporter:
    return ProgressReporter(cast(JobStates, states), interval=0.001)


def reporter_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "progress-reporter"}


def run_of(job_id: str) -> JobContext:
    task = {"name": "question", "text": "?"}
    job = read_job({"schema_version": 1, "namespace": "understand", "job_id": job_id, "task": task})
    return JobContext(job, cast(Engine, None))


def test_all_running_jobs_are_reported_at_once(reporter: ProgressReporter, states: FakeStates) -> None:
    with reporter.tracking(run_of("a")), reporter.tracking(run_of("b")):
        reporter.report_once()

    assert states.written == [{"a": Progress(), "b": Progress()}]


def test_nothing_runs_and_nothing_is_written(reporter: ProgressReporter, states: FakeStates) -> None:
    with reporter.tracking(run_of("a")):
        pass

    reporter.report_once()

    assert states.written == []


def test_only_the_unwanted_one_is_cancelled(reporter: ProgressReporter, states: FakeStates) -> None:
    wanted, unwanted = run_of("a"), run_of("b")
    states.unwanted = {"b", "a job of another worker"}

    with reporter.tracking(wanted), reporter.tracking(unwanted):
        reporter.report_once()

    wanted.raise_if_cancelled()
    with pytest.raises(JobCancelled):
        unwanted.raise_if_cancelled()


def test_a_job_that_fails_is_watched_no_longer(reporter: ProgressReporter, states: FakeStates) -> None:
    with pytest.raises(ValueError, match="broken"), reporter.tracking(run_of("a")):
        raise ValueError("broken")

    reporter.report_once()

    assert states.written == []


@pytest.mark.parametrize(
    ("error", "actions"),
    [
        (BrokerUnavailable("away"), ["progress_unreachable"]),
        (BrokerRefused("no right"), ["progress_unreachable"]),
        (ZeroDivisionError("unforeseen"), ["progress_reporter_failed", "progress_reporter_failed"]),
    ],
)
def test_it_goes_on_after_any_error_and_says_so(
    reporter: ProgressReporter,
    states: FakeStates,
    error: Exception,
    actions: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    states.errors = [error, error]

    with reporter.tracking(run_of("a")):
        reporter.start()
        try:
            assert states.wrote.wait(timeout=30)
        finally:
            reporter.stop()

    # That it goes on is told at INFO, which another test's logging may show here.
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.__dict__.get("action") for record in warned] == actions


def test_stopping_twice_or_before_the_start_is_no_fault(states: FakeStates) -> None:
    before = reporter_threads()
    never_started = ProgressReporter(cast(JobStates, states), interval=0.001)
    never_started.stop()

    started = ProgressReporter(cast(JobStates, states), interval=0.001)
    started.start()
    running = reporter_threads()
    started.stop()
    started.stop()

    assert len(running - before) == 1
    assert reporter_threads() == before


def test_a_job_that_came_back_is_tracked_although_its_first_run_ends(
    reporter: ProgressReporter, states: FakeStates
) -> None:
    first, second = reporter.tracking(run_of("a")), reporter.tracking(run_of("a"))
    with first:
        second.__enter__()

    reporter.report_once()

    assert states.written == [{"a": Progress()}]
    second.__exit__(None, None, None)
