"""Jobs sent by a Celery app of somebody's own: what it asks for beside the job is done, or refused with the reason."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from omnifleet import DeadlineExceeded, InvalidMessage, JobStatus
from omnifleet_shared.broker.leases import Leases
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet

PATIENCE = 240


@pytest.fixture
def mine(scripted: ScriptedFleet) -> Iterator[Celery]:
    """An app whose broker and results are in the fleet's Redis."""
    app = Celery("mine", broker=scripted.redis.url, backend=scripted.redis.url, set_as_current=False)
    yield app
    # A result that is dropped later would unsubscribe from a Redis that has ended.
    app.backend.result_consumer.cancel_for = lambda _: None
    app.close()


def job_of(mine: Celery, question: str = "what is it", steps: int = 4, **options: Any) -> Any:
    """The signature of a job."""
    job_id = uuid.uuid4().hex
    task = {"name": "question", "text": question, "max_new_tokens": steps}
    record = {
        "schema_version": 1,
        "job_id": job_id,
        "namespace": "understand",
        "task": task,
        "submitted_at": datetime.now(UTC).isoformat(),
    }
    return mine.signature(
        "omnifleet.understand",
        kwargs={"job": record},
        immutable=True,
        queue="audio-omni",
        task_id=job_id,
        **options,
    )


def test_jobs_and_groups_of_jobs_are_answered(scripted: ScriptedFleet, mine: Celery) -> None:
    scripted.start()

    sent = job_of(mine).apply_async()
    several = group(job_of(mine, f"number {number}") for number in range(3)).apply_async()

    assert sent.get(timeout=PATIENCE)["text"].startswith("what is it by")
    assert [one["text"].partition(" by")[0] for one in several.get(timeout=PATIENCE)] == [
        "number 0",
        "number 1",
        "number 2",
    ]
    assert scripted.omni.job(sent.id).status() is JobStatus.SUCCEEDED


def test_a_message_waits_for_its_time_in_no_worker(scripted: ScriptedFleet, mine: Celery) -> None:
    first = scripted.start()
    soon = job_of(mine).apply_async(countdown=10)
    late = job_of(mine).apply_async(eta=datetime.now(UTC) + timedelta(hours=1))
    leases = Leases(scripted.redis.client(), scripted.settings.queue, 2.0)
    services.wait_until(lambda: leases.count() == 2, WAIT, "both under lease")
    services.wait_until(lambda: first.metrics().value("omnifleet_worker_held_jobs") == 0, WAIT, "held by nobody")
    first.kill()
    second = scripted.start()

    assert soon.get(timeout=PATIENCE)["text"].endswith(f"by {second.pid}")
    assert late.state == "PENDING"
    late.forget()
    leases.close()


def test_a_message_that_expired_before_its_start_is_told(scripted: ScriptedFleet, mine: Celery) -> None:
    expired = job_of(mine).apply_async(expires=datetime.now(UTC) - timedelta(seconds=1))
    in_time = job_of(mine).apply_async(expires=600)
    scripted.start()

    with pytest.raises(DeadlineExceeded, match="the message expired at"):
        expired.get(timeout=PATIENCE)
    assert in_time.get(timeout=PATIENCE)["text"]
    assert scripted.redis.client().hlen("omnifleet:leased:audio-omni") == 0


@pytest.mark.parametrize("word", ["link", "link_error", "chain", "chord", "time_limit"])
def test_what_is_not_done_here_is_refused_to_whoever_waits(scripted: ScriptedFleet, mine: Celery, word: str) -> None:
    scripted.start()
    note = mine.signature("mine.note", immutable=True)
    send = {
        "link": lambda: job_of(mine).apply_async(link=note),
        "link_error": lambda: job_of(mine).apply_async(link_error=note),
        "chain": lambda: chain(job_of(mine), job_of(mine), note).apply_async(),
        "chord": lambda: chord([job_of(mine), job_of(mine)], note).apply_async(),
        "time_limit": lambda: job_of(mine).apply_async(time_limit=5),
    }

    waiting = send[word]()

    with pytest.raises(InvalidMessage, match=word):
        waiting.get(timeout=PATIENCE)
    assert job_of(mine).apply_async().get(timeout=PATIENCE)["text"]


def test_a_header_that_celery_would_stumble_over_is_refused(scripted: ScriptedFleet, mine: Celery) -> None:
    scripted.start()

    wrong = [job_of(mine).apply_async(headers=headers) for headers in ({"shadow": 5}, {"timelimit": "soon"})]

    for sent in wrong:
        with pytest.raises(InvalidMessage, match="its header"):
            sent.get(timeout=PATIENCE)
