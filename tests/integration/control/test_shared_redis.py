"""A Redis that other apps use too, that restarts, and a machine without threads."""

from __future__ import annotations

from celery import Celery
from omnifleet import JobStatus
from omnifleet.handle import JobHandle
from omnifleet_shared.broker.celery_app import create_app
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet

PLACES = 4


def test_commands_and_events_of_another_app_are_not_the_fleet_s(scripted: ScriptedFleet) -> None:
    worker = scripted.start()
    job = scripted.omni.understand(question="what is it", max_new_tokens=60)
    services.wait_until(lambda: job.progress().step > 0, WAIT, "progress")
    with Celery("theirs", broker=scripted.redis.url, set_as_current=False) as theirs:
        assert theirs.control.ping(timeout=1) == []
        theirs.control.shutdown()
        theirs.control.revoke(job.id, terminate=True)
        theirs.control.rate_limit("omnifleet.understand", "1/h")

        answers = create_app(scripted.settings).control.ping(timeout=WAIT, limit=1)

    assert [list(answer.values()) for answer in answers] == [[{"ok": "pong"}]]
    assert job.result(WAIT).text.endswith(f"by {worker.pid}")
    assert worker.status("/readyz") == 200


def test_a_worker_holds_as_many_jobs_after_a_restart_of_redis_as_before_and_no_more(scripted: ScriptedFleet) -> None:
    scripted.start(OMNIFLEET_CONCURRENCY=str(PLACES), OMNIFLEET_LEASE="10")

    def ask() -> list[JobHandle]:
        return [scripted.omni.understand(question=f"number {n}", max_new_tokens=80) for n in range(2 * PLACES)]

    def count(jobs: list[JobHandle], status: JobStatus) -> int:
        return [job.status() for job in jobs].count(status)

    before = ask()
    services.wait_until(lambda: count(before, JobStatus.RUNNING) == PLACES, WAIT, "all places taken")

    scripted.redis.client().shutdown()
    with scripted.redis.running():
        most = 0
        while not all(job.status().is_final for job in before):
            most = max(most, count(before, JobStatus.RUNNING))
        after = ask()
        services.wait_until(lambda: count(after, JobStatus.RUNNING) == PLACES, WAIT, "all places taken again")

        assert most == PLACES
        assert count(before, JobStatus.SUCCEEDED) == count(after, JobStatus.QUEUED) * 2 == 2 * PLACES


def test_where_no_thread_is_left_jobs_wait_for_the_worker(scripted: ScriptedFleet) -> None:
    worker = scripted.start(OMNIFLEET_CONCURRENCY="4", SCRIPTED_MOST_JOB_THREADS="1")

    jobs = [scripted.omni.understand(question=f"number {n}", max_new_tokens=4) for n in range(4)]

    assert [job.result(WAIT).text for job in jobs]
    assert any(line.get("action") == "threads_exhausted" for line in worker.lines())


def test_what_a_worker_cannot_begin_with_goes_back_and_is_done(scripted: ScriptedFleet) -> None:
    worker = scripted.start(SCRIPTED_HANDLER_FAILS="2")

    jobs = [scripted.omni.understand(question=f"number {n}", max_new_tokens=4) for n in range(3)]

    assert [job.result(WAIT).text for job in jobs]
    assert [line.get("action") for line in worker.lines()].count("message_given_back") == 2
    services.wait_until(lambda: worker.metrics().value("omnifleet_worker_held_jobs") == 0, WAIT, "nothing is held")
