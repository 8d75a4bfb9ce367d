"""What earlier releases wrote is read by this one; a change of the records needs fixtures of its own."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from omnifleet_shared.broker.dead_letters import DeadLetter
from omnifleet_shared.errors import error_classes
from omnifleet_shared.keys import JOB_SCHEMA_VERSION
from omnifleet_shared.schema.job_state import STATUS_OF, read_state
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import JobResult, JobStatus, Progress
from omnifleet_shared.schema.tasks import TASK_NAMES
from support.data import released_records

RELEASES = released_records.releases()
every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name)


def load(release: Path, name: str) -> Any:
    return json.loads((release / f"{name}.json").read_text())


def without_prose(schema: Any) -> Any:
    """The schema without its descriptions, which are our docstrings and may get better."""
    if isinstance(schema, list):
        return [without_prose(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_prose(one) for key, one in schema.items() if key != "description" or isinstance(one, dict)}


def test_there_are_fixtures_of_every_schema_version() -> None:
    assert [release.name for release in RELEASES] == [f"v{number}" for number in range(1, JOB_SCHEMA_VERSION + 1)]


def test_the_records_have_not_changed_since_their_version_was_given_out() -> None:
    released = without_prose(load(RELEASES[-1], "schemas"))
    today = without_prose(json.loads(json.dumps(released_records.schemas())))

    remedy = (
        "The records have changed. What is released stays as it is: raise JOB_SCHEMA_VERSION or SCHEMA_VERSION in "
        "omnifleet_shared/keys.py, write old records in their old version, and keep what the new one writes: "
        "PYTHONPATH=tests python -m support.data.released_records tests/released/vN"
    )
    assert released == today, remedy


@every_release
def test_every_message_is_a_job_of_today(release: Path) -> None:
    messages = load(release, "messages")
    read = []

    for job_id, message in messages.items():
        _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
        job = read_job(kwargs["job"])
        # Byte for byte what it was: a job that is dead-lettered and replayed may go to a worker of the older release.
        assert job.model_dump(mode="json") == kwargs["job"]
        assert job.job_id == job_id == message["headers"]["id"]
        read.append(f"{job.namespace}.{job.task.name}")

    assert set(read) >= {f"{namespace}.{name}" for namespace, names in TASK_NAMES.items() for name in names}


@every_release
def test_every_state_is_read(release: Path) -> None:
    for name, record in load(release, "states").items():
        state = read_state(json.dumps(record).encode())

        what, _, which = name.partition(" ")
        if what == "succeeded":
            assert isinstance(state.result, JobResult), name
            assert state.result.model_dump(mode="json") == record["result"]
        elif what == "failed":
            assert type(state.error) is error_classes()[which]
            assert list(state.error.args) == record["result"]["exc_message"]
        else:
            assert state.status is STATUS_OF[record["status"]]
    assert read_state(json.dumps(load(release, "states")["failed JobCancelled"]).encode()).status is JobStatus.CANCELLED


@every_release
def test_dead_letters_and_progress_are_read(release: Path) -> None:
    others = load(release, "others")

    assert DeadLetter.model_validate(others["dead letter"]).model_dump(mode="json") == others["dead letter"]
    assert Progress.model_validate(others["progress"]) == Progress(step=37, steps=100, eta=4.1)
    for name in [name for name in others if name.startswith("part of ")]:
        assert StreamedPart.model_validate(others[name]).model_dump(mode="json") == others[name]


def test_jobs_without_a_callback_are_written_as_the_first_release_did() -> None:
    first = load(RELEASES[0], "messages")

    for job in released_records.jobs():
        _, kwargs, _ = json.loads(base64.b64decode(first[job.job_id]["body"]))
        today = job.model_dump(mode="json")
        assert today.keys() == kwargs["job"].keys()
        drawn = {"seed", "submitted_at"}
        assert {k: v for k, v in today.items() if k not in drawn} == {
            k: v for k, v in kwargs["job"].items() if k not in drawn
        }
