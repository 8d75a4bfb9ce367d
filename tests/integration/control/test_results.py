"""`AsyncResult` and Celery's commands that look, at a shell as operators use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from celery import Celery
from omnifleet import MediaUnreadable
from omnifleet_shared.broker.celery_app import create_app
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet

TOKEN = "a-token-of-nobody-s-business"
LONG_TEXT = "words of a patient that nobody may read in full, and that are long enough to be cut"


@pytest.fixture
def app(scripted: ScriptedFleet) -> Iterator[Celery]:
    with create_app(scripted.settings) as app:
        yield app


def celery(scripted: ScriptedFleet, *command: str) -> str:
    """What it prints."""
    line = [sys.executable, "-m", "celery", "-A", "omnifleet.ops.celery", *command]
    environment = {**os.environ, **scripted.environment}
    done = subprocess.run(line, capture_output=True, text=True, timeout=WAIT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_async_result_reads_what_the_client_reads(scripted: ScriptedFleet, app: Celery) -> None:
    waiting = scripted.omni.understand(question="what is it", max_new_tokens=4)
    assert app.AsyncResult(waiting.id).state == "QUEUED"
    scripted.start()
    failing = scripted.omni.understand(question="what is said", audio=b"no audio")

    assert app.AsyncResult(waiting.id).get(timeout=WAIT, interval=0.05)["text"] == waiting.result(WAIT).text
    with pytest.raises(MediaUnreadable):
        app.AsyncResult(failing.id).get(timeout=WAIT, interval=0.05)
    assert [app.AsyncResult(job.id).state for job in (waiting, failing)] == ["SUCCESS", "FAILURE"]
    with pytest.raises(NotImplementedError, match="they expire"):
        app.AsyncResult(waiting.id).forget()
    assert waiting.status().is_final


def test_the_commands_that_look_work_and_show_no_more_than_flower(scripted: ScriptedFleet) -> None:
    scripted.start(OMNIFLEET_CALLBACK_HOSTS="http://127.0.0.1:9", OMNIFLEET_CALLBACK_SECRET="x" * 20)
    callback = f"http://127.0.0.1:9/hook?token={TOKEN}"
    job = scripted.omni.understand(question=LONG_TEXT, max_new_tokens=2000, callback=callback)
    services.wait_until(lambda: job.progress().step > 0, WAIT, "progress")

    status = celery(scripted, "status", "--timeout", "10")
    shown = {name: celery(scripted, "inspect", "--timeout", "10", "--json", name) for name in ("active", "reserved")}
    shown["query_task"] = celery(scripted, "inspect", "--timeout", "10", "--json", "query_task", job.id)

    assert "1 node online" in status
    (active,) = next(iter(json.loads(shown["active"]).values()))
    assert active["id"] == job.id
    assert active["kwargs"].startswith("understand.question, text='words of a patient")
    assert job.id in shown["query_task"]
    for text in shown.values():
        assert TOKEN not in text
        assert LONG_TEXT not in text
    job.cancel()


def test_the_command_that_prints_a_result_prints_the_record(scripted: ScriptedFleet) -> None:
    scripted.start()
    job = scripted.omni.understand(question="what is it", max_new_tokens=4)
    text = job.result(WAIT).text

    assert text in celery(scripted, "result", job.id)
