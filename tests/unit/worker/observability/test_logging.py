"""Log lines as JSON: those of the library, field by field."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from omnifleet_worker.observability.logging import JsonLines
from pythonjsonlogger.json import JsonFormatter

BY_THE_LIBRARY = JsonFormatter(
    "{asctime}{levelname}{name}{message}",
    style="{",
    rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
)


def record(message: Any, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("omnifleet").makeRecord("omnifleet", logging.INFO, "", 0, message, args, None, None, extra)


@pytest.mark.parametrize(
    "line",
    [
        record("the worker has started"),
        record("job %s: %d steps", "Ω", 3, action="job_done", job_id="a", timings={"stored": 0.5}, resumed_from=0),
        record({"message": "of a library that logs records", "code": 7}, action="told"),
        record("not of JSON", worker=object, seconds=float("inf")),
    ],
)
def test_a_line_is_the_librarys(line: logging.LogRecord) -> None:
    assert json.loads(JsonLines().format(line)) == json.loads(BY_THE_LIBRARY.format(line))


def test_a_line_of_an_error_has_its_traceback() -> None:
    line = record("it failed")
    try:
        raise ValueError("of the test")
    except ValueError:
        line.exc_info = sys.exc_info()

    shown = json.loads(JsonLines().format(line))

    assert shown == json.loads(BY_THE_LIBRARY.format(line))
    assert "ValueError: of the test" in shown["exc_info"]


def test_lines_of_two_seconds_have_their_times() -> None:
    lines, formatter = [record("one"), record("another")], JsonLines()
    lines[1].created += 61

    shown = [json.loads(formatter.format(line))["time"] for line in [*lines, lines[0]]]

    assert shown == [json.loads(BY_THE_LIBRARY.format(line))["time"] for line in [*lines, lines[0]]]
    assert shown[0] != shown[1]
