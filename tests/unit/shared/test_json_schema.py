"""The contract for other languages is what the records are, and what really is sent."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError
from omnifleet_shared import json_schema as schemas
from omnifleet_shared.broker.submit import SUBMIT
from omnifleet_shared.errors import MediaTooLong
from omnifleet_shared.schema.callback import failed, succeeded
from support.data import released_records
from support.data.contract import FOLDER, check, load


@pytest.mark.parametrize("name", list(schemas.documents()))
def test_what_is_kept_is_what_the_records_say(name: str) -> None:
    assert (FOLDER / name).read_text() == schemas.documents()[name], "run make schemas"


def test_nothing_else_is_kept() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(schemas.documents())


def test_the_script_is_the_one_that_python_sends_with() -> None:
    assert (FOLDER / "submit.lua").read_text().endswith(SUBMIT.strip() + "\n")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.schema.json")), ids=lambda path: path.name)
def test_every_schema_is_one(path: Path) -> None:
    Draft202012Validator.check_schema(load(path))


@pytest.mark.parametrize("release", released_records.releases(), ids=lambda path: path.name)
class TestReleases:
    """What every release wrote is valid still."""

    def test_messages_and_their_jobs(self, release: Path) -> None:
        for message in load(release / "messages.json").values():
            check("message", message)
            _, kwargs, _ = json.loads(base64.b64decode(message["body"]))
            check("job", kwargs["job"])

    def test_states(self, release: Path) -> None:
        for record in load(release / "states.json").values():
            check("state", record)

    def test_progress(self, release: Path) -> None:
        check("progress", load(release / "others.json")["progress"])


def test_callbacks() -> None:
    for result in released_records.results().values():
        check("callback", json.loads(succeeded(result, "d-1").model_dump_json()))
    check("callback", json.loads(failed("job-1", MediaTooLong("it is long"), "d-1").model_dump_json()))


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("job", {"schema_version": 1, "namespace": "generate", "task": {"name": "t2a"}}),
        ("job", {"schema_version": 1, "namespace": "generate", "task": {"name": "t2a", "text": "x"}, "odd": 1}),
        ("job", {"schema_version": 99, "namespace": "generate", "task": {"name": "t2a", "text": "x"}}),
        ("state", {"status": "DONE", "task_id": "x"}),
        ("state", {"status": "SUCCESS", "task_id": "x", "result": {"text": "x"}}),
        ("state", {"status": "FAILURE", "task_id": "x", "result": {"exc_type": "MediaTooLong"}}),
        ("message", {"body": "", "headers": {}}),
        ("progress", {"step": -1}),
    ],
)
def test_what_is_none_is_refused(name: str, record: object) -> None:
    with pytest.raises(ValidationError):
        check(name, record)
