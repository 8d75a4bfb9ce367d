"""A Redis that answers and refuses, under real workers: they wait, say why once, and go on when it takes them again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from omnifleet import JobHandle, JobStatus
from support import services
from support.fork_server import is_alive
from support.scripted_fleet import LEASE, WAIT, ScriptedFleet, ScriptedWorker

SECONDS = LEASE + 1
"""Of a refusal: more than a lease."""


@dataclass(frozen=True)
class Refusal:
    """A way in which Redis refuses."""

    begin: Callable[[ScriptedFleet], object]
    end: Callable[[ScriptedFleet], object]
    reply: str


def _demote(scripted: ScriptedFleet) -> None:
    scripted.redis.client().execute_command("REPLICAOF", "127.0.0.1", services.free_port())


def _promote(scripted: ScriptedFleet) -> None:
    scripted.redis.client().execute_command("REPLICAOF", "NO", "ONE")


def _configure(name: str, value: object) -> Callable[[ScriptedFleet], object]:
    return lambda scripted: scripted.redis.client().config_set(name, value)


def _keep_busy(scripted: ScriptedFleet) -> None:
    scripted.redis.client().config_set("lua-time-limit", 50)
    loop = f"local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < {SECONDS} do end"

    def run() -> None:
        with suppress(redis.RedisError):
            redis.Redis(port=scripted.redis.port, socket_timeout=60).eval(loop, 0)

    threading.Thread(target=run, daemon=True).start()


def _allow(*rights: str) -> Callable[[ScriptedFleet], object]:
    return lambda scripted: scripted.redis.client().execute_command("ACL", "SETUSER", "default", *rights)


REFUSALS = {
    "a managed failover": Refusal(_demote, _promote, "replica"),
    "a right is taken away": Refusal(_allow("-evalsha", "-brpop"), _allow("+evalsha", "+brpop"), "right"),
    "replicas are missing": Refusal(
        _configure("min-replicas-to-write", 1), _configure("min-replicas-to-write", 0), "replicas"
    ),
    "a long script": Refusal(_keep_busy, lambda _: None, "script"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_workers_outlive_it_and_do_their_jobs(scripted: ScriptedFleet, refusal: Refusal) -> None:
    busy, idle = scripted.start(), scripted.start()
    running = scripted.omni.understand(question="Who is it?", max_new_tokens=60)
    services.wait_until(lambda: running.status() is JobStatus.RUNNING, WAIT, "a running job")

    refusal.begin(scripted)
    time.sleep(SECONDS)
    services.wait_until(lambda: any(refusal.reply in one["message"] for one in _outage_lines(idle)), WAIT, "its words")
    refusal.end(scripted)

    services.wait_until(lambda: _takes_jobs(scripted), WAIT, "a Redis that takes jobs again")
    assert running.result(WAIT).text
    assert is_alive(busy.pid)
    assert is_alive(idle.pid)
    said = [line for worker in (busy, idle) for line in worker.lines() if line["level"] in ("ERROR", "CRITICAL")]
    assert said == []


def test_an_idle_worker_says_once_that_redis_is_away(scripted: ScriptedFleet) -> None:
    worker = scripted.start()
    before = len(worker.lines())
    scripted.redis.client().execute_command("ACL", "SETUSER", "default", "-evalsha", "-brpop", "-eval")
    time.sleep(SECONDS)
    refused = worker.lines()[before:]
    scripted.redis.client().execute_command("ACL", "SETUSER", "default", "+evalsha", "+brpop", "+eval")
    services.wait_until(lambda: _said(worker, "polls_unreachable_over"), WAIT, "jobs that are taken again")

    actions = [line.get("action") for line in refused]
    assert len(actions) == len(set(actions)), refused
    assert len(actions) <= 5, refused


def test_an_idle_worker_whose_redis_is_gone_says_so_once(scripted: ScriptedFleet, tmp_path: Path) -> None:
    worker = scripted.start()
    before = len(worker.lines())

    scripted.redis.client().shutdown(nosave=True)
    time.sleep(2 * SECONDS)

    lines = worker.lines()[before:]
    actions = [line.get("action") for line in lines]
    assert len(lines) <= 6, lines
    assert len(actions) == len(set(actions)), lines


@pytest.fixture
def full(scripted: ScriptedFleet) -> Iterator[ScriptedFleet]:
    """A fleet of two workers that hold four jobs, two more in the queue, and no room left in Redis."""
    for _ in range(2):
        scripted.start(OMNIFLEET_CONCURRENCY="2")
    yield scripted
    scripted.redis.client().config_set("maxmemory", 0)


def test_a_full_redis_takes_no_job_and_records_what_becomes_of_the_others(full: ScriptedFleet) -> None:
    running = [_long_job(full, number) for number in range(4)]
    services.wait_until(lambda: all(job.status() is JobStatus.RUNNING for job in running), WAIT, "running jobs")
    waiting = [_long_job(full, number) for number in range(4, 7)]
    full.redis.client().config_set("maxmemory", 1)
    time.sleep(SECONDS)

    waiting[-1].cancel()
    results = [job.result(WAIT) for job in (*running, *waiting[:-1])]

    assert [result.attempts for result in results] == [1] * 6
    assert full.redis.client().llen("audio-omni") == 0
    services.wait_until(lambda: waiting[-1].status() is JobStatus.CANCELLED, WAIT, "the cancellation")


def _long_job(fleet: ScriptedFleet, number: int) -> JobHandle[Any]:
    return fleet.omni.understand(question=f"Who is number {number}?", max_new_tokens=80)


def _takes_jobs(scripted: ScriptedFleet) -> bool:
    with suppress(Exception):  # whatever Redis still refuses
        return bool(scripted.omni.understand(question="Is it over?", max_new_tokens=1).result(WAIT).text)
    return False


def _outage_lines(worker: ScriptedWorker) -> list[dict[str, Any]]:
    return [line for line in worker.lines() if str(line.get("action")).endswith("_unreachable")]


def _said(worker: ScriptedWorker, action: str) -> bool:
    return any(line.get("action") == action for line in worker.lines())
