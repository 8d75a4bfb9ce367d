"""Messages that leave the queue without a worker: nobody waits for their jobs for ever."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from omnifleet import AsyncClient, Client, JobCancelled, JobStatus, MessageLost, OmnifleetError
from omnifleet.cli import app
from omnifleet.handle import JobHandle
from omnifleet.ops.doctor import examine
from omnifleet_shared.broker.celery_app import create_app
from omnifleet_shared.broker.removal.lost_messages import LostMessages
from omnifleet_shared.broker.submit import all_lists
from omnifleet_shared.keys import ANSWERS_QUEUE
from support import services
from support.receiver import receiver
from support.scripted_fleet import WAIT, ScriptedFleet
from typer.testing import CliRunner

SECRET = "a secret of this very test"


@pytest.fixture
def omni(scripted: ScriptedFleet) -> Iterator[Client]:
    """A client whose unfinished jobs are counted: three are allowed."""
    settings = scripted.settings.model_copy(update={"producer": "web", "max_unfinished": 3})
    with Client(settings) as client:
        yield client


def ask(omni: Client, key: str | None = None, steps: int = 4) -> JobHandle:
    return omni.understand(question="what is it", max_new_tokens=steps, idempotency_key=key)


def purge(scripted: ScriptedFleet) -> None:
    """As an operator does, at a shell."""
    command = [sys.executable, "-m", "celery", "-A", "omnifleet.ops.celery", "purge", "--force"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment(scripted))
    assert "Purged 2 messages" in done.stdout, done.stdout + done.stderr


def environment(scripted: ScriptedFleet) -> dict[str, str]:
    return {**os.environ, **scripted.environment}


def delete_queue(scripted: ScriptedFleet) -> None:
    celery = create_app(scripted.settings)
    with celery.connection_for_write() as connection:
        channel = connection.default_channel
        celery.amqp.queues[scripted.settings.queue].bind(channel).declare()
        channel.queue_delete(scripted.settings.queue)


REMOVALS: dict[str, tuple[Callable[[ScriptedFleet], object], type[OmnifleetError]]] = {
    "celery purge": (purge, JobCancelled),
    "queue deleted": (delete_queue, JobCancelled),
    "DEL": (lambda scripted: scripted.redis.client().delete(*all_lists(scripted.settings.queue)), MessageLost),
}


@pytest.mark.parametrize("how", REMOVALS)
def test_whoever_waits_for_a_job_that_is_taken_away_is_told(scripted: ScriptedFleet, omni: Client, how: str) -> None:
    remove, error = REMOVALS[how]
    scripted.start(OMNIFLEET_CONCURRENCY="1", OMNIFLEET_RECONCILE_INTERVAL="0.5")
    runs = ask(omni, steps=2000)
    services.wait_until(lambda: runs.progress().step > 0, WAIT, "progress")
    waiting = [ask(omni), ask(omni, "a key")]

    remove(scripted)

    for job in waiting:
        with pytest.raises(error):
            job.result(WAIT)
    assert runs.status() is JobStatus.RUNNING
    runs.cancel()
    with pytest.raises(JobCancelled):
        runs.result(WAIT)
    # The key is free again, and nobody counts as unfinished.
    again = [ask(omni, "a key"), ask(omni), ask(omni)]
    assert again[0].id != waiting[1].id
    assert all(job.result(WAIT).text for job in again)


def test_somebody_who_waits_in_a_loop_of_asyncio_is_told_too(scripted: ScriptedFleet, omni: Client) -> None:
    job = ask(omni)

    async def wait() -> None:
        async with AsyncClient(scripted.settings) as client:
            result = asyncio.create_task(client.job(job.id).result(WAIT))
            await asyncio.to_thread(REMOVALS["queue deleted"][0], scripted)
            await result

    with pytest.raises(JobCancelled, match="purged"):
        asyncio.run(wait())


def test_the_callback_of_a_purged_job_is_posted(scripted: ScriptedFleet, omni: Client) -> None:
    with receiver() as receives:
        job = omni.understand(question="what is it", callback=receives.url)
        delete_queue(scripted)
        scripted.start(OMNIFLEET_CALLBACK_SECRET=SECRET, OMNIFLEET_CALLBACK_HOSTS=f"http://{receives.host}")

        services.wait_until(lambda: bool(receives.requests), WAIT, "a callback")

    assert job.id in receives.requests[0].body.decode()


def test_only_jobs_without_a_message_are_lost(scripted: ScriptedFleet, omni: Client) -> None:
    kept, lost = scripted.omni.understand(question="kept", priority="batch"), ask(omni)
    foreign = scripted.redis.client()
    foreign.set("celery-task-meta-another-app-s", b'{"status": "STARTED", "result": null}')
    foreign.set("celery-task-meta-unreadable", b"\xff")
    foreign.delete(ANSWERS_QUEUE.format(queue=scripted.settings.queue))
    messages = LostMessages.connect(scripted.settings)

    found = messages.find()

    assert found == {lost.id}
    assert [messages.tell(found), messages.tell(found)] == [1, 0]
    assert messages.find() == set()
    assert kept.status() is JobStatus.QUEUED
    assert foreign.get("celery-task-meta-another-app-s") == b'{"status": "STARTED", "result": null}'
    messages.close()


def test_a_running_job_whose_message_was_deleted_is_told_of_too(scripted: ScriptedFleet) -> None:
    worker = scripted.start(OMNIFLEET_RECONCILE_INTERVAL="0.5")
    job = scripted.omni.understand(question="what is it", max_new_tokens=60)
    services.wait_until(lambda: job.progress().step > 0, WAIT, "progress")

    scripted.redis.client().delete("omnifleet:leased:audio-omni", "omnifleet:leases:audio-omni")

    with pytest.raises(MessageLost):
        job.result(WAIT)
    services.wait_until(lambda: "messages_lost" in worker.log.read_text(), WAIT, "a line in the log")


def test_doctor_names_the_jobs_and_the_priorities_that_no_worker_reads(scripted: ScriptedFleet, omni: Client) -> None:
    job = ask(omni)
    redis = scripted.redis.client()
    redis.rename(ANSWERS_QUEUE.format(queue=scripted.settings.queue), f"{scripted.settings.queue}\x06\x163")

    findings = {one.check: one for one in examine(scripted.settings, with_job=False) if one.level == "fault"}

    assert job.id in findings["messages"].message
    assert "1 messages wait at Celery's priority 3" in findings["priorities"].message
    assert job.status() is JobStatus.QUEUED  # it only looks


def test_top_counts_the_jobs_whose_messages_are_gone(scripted: ScriptedFleet, omni: Client) -> None:
    jobs = [ask(omni) for _ in range(3)]
    redis = scripted.redis.client()
    redis.rpop(ANSWERS_QUEUE.format(queue=scripted.settings.queue), 2)

    frame = CliRunner().invoke(app, ["top", "--once"], env=scripted.environment).stdout

    assert "2 lost" in frame
    assert [job.status() for job in jobs] == [JobStatus.QUEUED] * 3  # it only looks
