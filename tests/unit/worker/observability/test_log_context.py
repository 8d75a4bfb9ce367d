"""The fields that a log record gets from its thread."""

from __future__ import annotations

import logging
import threading

import pytest
from omnifleet_worker.observability.log_context import (
    JobFields,
    enter_job,
    enter_stage,
    in_stage,
    leave_job,
    log_job,
    set_attempt,
)


def fields_of_a_line(**extra: object) -> dict[str, object]:
    record = logging.makeLogRecord({"msg": "a line", **extra})
    assert JobFields("host:1").filter(record)
    return {name: getattr(record, name) for name in ("worker", "job_id", "attempt", "stage") if hasattr(record, name)}


@pytest.fixture(autouse=True)
def no_job() -> None:
    leave_job()


def test_a_line_of_no_job_names_the_worker_alone() -> None:
    assert fields_of_a_line() == {"worker": "host:1"}


def test_a_line_of_a_job_says_its_attempt_and_stage() -> None:
    enter_job("a")
    set_attempt(2)
    enter_stage("begin")

    with in_stage("fetch"):
        assert fields_of_a_line() == {"worker": "host:1", "job_id": "a", "attempt": 2, "stage": "fetch"}

    assert fields_of_a_line()["stage"] == "begin"


def test_what_a_line_says_of_itself_stands() -> None:
    with log_job("a"):
        assert fields_of_a_line(job_id="b", attempt=7)["job_id"] == "b"


def test_threads_do_not_see_each_other_s_job() -> None:
    enter_job("a")
    seen: list[dict[str, object]] = []

    thread = threading.Thread(target=lambda: seen.append(fields_of_a_line()))
    thread.start()
    thread.join()

    assert seen == [{"worker": "host:1"}]


def test_stages_and_attempts_outside_of_a_job_are_no_fault() -> None:
    set_attempt(1)
    with in_stage("steps"):
        enter_stage("store")

    assert fields_of_a_line() == {"worker": "host:1"}
