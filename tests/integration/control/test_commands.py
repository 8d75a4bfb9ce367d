"""Celery's remote commands on real workers: each does what it says, or is refused with the reason."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from omnifleet import JobCancelled, JobStatus
from omnifleet.handle import JobHandle
from omnifleet_shared.broker.celery_app import create_app
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker

ANSWERS_IN = 10.0
LONG = 2000
"""Tokens: so many steps are more than a test waits for."""


def ask(scripted: ScriptedFleet, question: str = "what is it", steps: int = 4) -> JobHandle:
    return scripted.omni.understand(question=question, max_new_tokens=steps)


def running(job: JobHandle) -> JobHandle:
    services.wait_until(lambda: job.progress().step > 0, WAIT, "progress")
    return job


def order(scripted: ScriptedFleet, command: str, **arguments: Any) -> dict[str, str]:
    """What the only worker answers."""
    control = create_app(scripted.settings).control
    (answer,) = control.broadcast(command, arguments=arguments, reply=True, timeout=WAIT, limit=1)
    (words,) = answer.values()
    return dict(words)


def has_logged(worker: ScriptedWorker, action: str) -> bool:
    return any(line.get("action") == action for line in worker.lines())


@pytest.mark.parametrize(
    ("command", "more"),
    [("revoke", {}), ("revoke", {"terminate": True, "signal": "KILL"}), ("terminate", {"signal": "SIGTERM"})],
)
def test_a_running_job_that_is_revoked_is_cancelled_and_its_worker_goes_on(
    scripted: ScriptedFleet, command: str, more: dict[str, Any]
) -> None:
    scripted.start()
    job = running(ask(scripted, steps=LONG))

    assert order(scripted, command, task_id=job.id, **more) == {"ok": f"{job.id} is to be cancelled"}

    with pytest.raises(JobCancelled):
        job.result(WAIT)
    assert job.status() is JobStatus.CANCELLED
    assert ask(scripted).result(WAIT).text


def test_a_waiting_job_that_is_revoked_is_cancelled_when_its_turn_comes(scripted: ScriptedFleet) -> None:
    scripted.start(OMNIFLEET_CONCURRENCY="1")
    first = running(ask(scripted, steps=LONG))
    waiting = ask(scripted)

    order(scripted, "revoke", task_id=[waiting.id])
    order(scripted, "revoke", task_id=[first.id])

    for job in (first, waiting):
        with pytest.raises(JobCancelled):
            job.result(WAIT)
    assert scripted.redis.client().llen(scripted.settings.queue) == 0


def test_a_revoked_job_whose_worker_is_lost_is_cancelled_all_the_same(scripted: ScriptedFleet) -> None:
    has_it = scripted.start()
    job = running(ask(scripted, steps=LONG))
    scripted.start()
    has_it.signal(signal.SIGSTOP)

    order(scripted, "revoke", task_id=job.id)
    has_it.kill()

    with pytest.raises(JobCancelled):
        job.result(WAIT)


def test_a_job_that_has_ended_cannot_be_revoked(scripted: ScriptedFleet) -> None:
    scripted.start()
    job = ask(scripted)
    text = job.result(WAIT).text

    assert order(scripted, "revoke", task_id=job.id) == {"ok": f"{job.id} had ended before"}
    assert "not recorded" in order(scripted, "revoke", task_id="no id\n")["error"]

    assert job.result(WAIT).text == text


def test_what_a_worker_does_not_do_is_refused_with_the_reason_and_changes_nothing(scripted: ScriptedFleet) -> None:
    scripted.start()
    commands: dict[str, tuple[dict[str, Any], str]] = {
        "pool_grow": ({"n": 2}, "OMNIFLEET_CONCURRENCY"),
        "pool_shrink": ({"n": 2}, "OMNIFLEET_CONCURRENCY"),
        "pool_restart": ({}, "start another"),
        "autoscale": ({"max": 5, "min": 2}, "more workers"),
        "rate_limit": ({"task_name": "omnifleet.understand", "rate_limit": "1/h"}, "OMNIFLEET_MAX_UNFINISHED"),
        "time_limit": ({"task_name": "omnifleet.understand", "soft": 1, "hard": 1}, "deadline"),
        "revoke_by_stamped_headers": ({"headers": {"a": ["b"]}}, "by their ids"),
        "add_consumer": ({"queue": "other"}, "serves audio-omni alone: start another with OMNIFLEET_QUEUE=other"),
        "cancel_consumer": ({"queue": "other"}, "serves audio-omni alone"),
    }

    answers = {name: order(scripted, name, **arguments) for name, (arguments, _) in commands.items()}

    for name, (_, reason) in commands.items():
        assert reason in answers[name]["error"], name
    jobs = [ask(scripted) for _ in range(4)]
    assert all(job.result(WAIT).text for job in jobs)


def test_a_cancelled_consumer_finishes_what_it_has_and_takes_jobs_again_when_told(scripted: ScriptedFleet) -> None:
    worker = scripted.start(OMNIFLEET_POLL_PATIENCE="4", OMNIFLEET_GRACE="0")
    inspect = create_app(scripted.settings).control.inspect(timeout=ANSWERS_IN)
    job = running(ask(scripted, steps=120))

    assert "ok" in order(scripted, "cancel_consumer", queue="audio-omni")
    waiting = ask(scripted)

    assert job.result(WAIT).text.endswith(f"by {worker.pid}")
    assert "consumer cancelled" in worker.page("/readyz")[1]
    assert list(inspect.active_queues().values()) == [[]]
    assert waiting.status() is JobStatus.QUEUED
    assert "ok" in order(scripted, "add_consumer", queue="audio-omni")
    assert waiting.result(WAIT).text.endswith(f"by {worker.pid}")
    assert worker.status("/readyz") == 200


@pytest.mark.parametrize("how", ["shutdown", "SIGHUP"])
def test_a_worker_that_is_told_to_end_lets_its_jobs_finish(scripted: ScriptedFleet, how: str) -> None:
    worker = scripted.start()
    job = running(ask(scripted, steps=40))

    tell_to_end(scripted, worker, how)

    assert job.result(WAIT).text.endswith(f"by {worker.pid}")
    worker.wait()
    assert has_logged(worker, "worker_stopped")
    assert not has_logged(worker, "poll_stalled")


@pytest.mark.parametrize("how", ["shutdown", "SIGHUP", "SIGQUIT"])
def test_what_does_not_end_in_its_grace_is_handed_back(scripted: ScriptedFleet, how: str) -> None:
    worker = scripted.start(OMNIFLEET_GRACE="0" if how != "SIGQUIT" else "600")
    job = running(ask(scripted, steps=100))

    tell_to_end(scripted, worker, how)

    worker.wait()
    other = scripted.start()
    result = job.result(WAIT)
    assert result.text.endswith(f"by {other.pid}")
    assert not has_logged(other, "suspect_claimed")


def tell_to_end(scripted: ScriptedFleet, worker: ScriptedWorker, how: str) -> None:
    if how == "shutdown":
        assert "running jobs have" in order(scripted, "shutdown")["ok"]
    else:
        worker.signal(signal.Signals[how])
