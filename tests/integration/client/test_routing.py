"""A fleet of two models: jobs in either queue, and the tools that look at them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from omnifleet import Client, InvalidJob, JobCancelled, JobHandle, JobQuarantined, JobStatus, NoModelFor, ResultTimeout
from omnifleet.cli import app
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.dead_letters import DeadLetter
from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.keys import DEAD_KEY
from omnifleet_shared.schema.job_state import STATE_KEY, failure_record
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker
from typer.testing import CliRunner

MODELS = "audio-omni,voxcpm2"
QUEUE = "audio-omni.voxcpm2"
CARD = {"name": "voxcpm2", "revision": "r7", "licence": "Apache-2.0", "commercial_use": True, "languages": ["en", "ru"]}


def start_other(fleet: ScriptedFleet) -> ScriptedWorker:
    """A worker that stands for the other model, and has told so."""
    worker = fleet.start(OMNIFLEET_QUEUE=QUEUE, SCRIPTED_CARD=json.dumps(CARD))
    with closing(CeleryTransport(fleet.settings)) as transport:

        def has_told() -> bool:
            return any(one.capabilities and one.name.endswith(f":{worker.pid}") for one in transport.workers(QUEUE))

        services.wait_until(has_told, WAIT, "what the worker can do")
    return worker


def omnifleet(fleet: ScriptedFleet, *command: str) -> str:
    environment = fleet.environment | {"OMNIFLEET_MODELS": MODELS, "COLUMNS": "200"}
    done = CliRunner().invoke(app, command, env=environment)
    assert done.exit_code == 0, done.stdout + done.stderr
    return done.stdout


def test_jobs_of_two_models_are_routed_survive_a_kill_and_are_seen(scripted: ScriptedFleet) -> None:
    first, other = scripted.start(), start_other(scripted)
    with Client(scripted.settings.model_copy(update={"models": MODELS})) as omni:
        usual = omni.understand(question="Who is it?", max_new_tokens=1)
        earning = omni.understand(question="Is it sold?", max_new_tokens=60, commercial=True)
        unwanted = omni.understand(question="And this?", max_new_tokens=4000, commercial=True)
        assert usual.result(WAIT).text == f"Who is it? by {first.pid}"
        services.wait_until(lambda: earning.progress().step > 0, WAIT, "a routed job that runs")
        unwanted.cancel()
        with pytest.raises(JobCancelled):
            unwanted.result(WAIT)

        other.kill()
        successor = start_other(scripted)
        result = earning.result(WAIT)

        route = omni.job(earning.id).route()
        assert result.text == f"Is it sold? by {successor.pid}"
        assert route is not None and (route.model, route.queue, route.live) == ("voxcpm2", QUEUE, True)
        assert (route.revision, route.licence) == ("r7", "Apache-2.0")
        assert (result.record.route, result.record.attempts) == (route, 2)
        assert (result.record.model.name, result.record.model.revision) == ("voxcpm2", "r7")
        told = usual.route()
        assert told is not None and (told.model, told.queue) == ("audio-omni", "audio-omni")
        assert usual.result().record.route == told
    _see_both(scripted)
    _refuse_what_is_for_another(scripted)


def _see_both(fleet: ScriptedFleet) -> None:
    frame, findings = omnifleet(fleet, "top", "--once"), omnifleet(fleet, "doctor")

    assert "audio-omni: 1 of 1 workers ready" in frame
    # The one that was killed is counted for some seconds yet.
    assert re.search(rf"^{QUEUE}: [12] of [12] workers ready", frame, re.MULTILINE)
    assert re.search(rf"workers of {QUEUE}: [12] of [12] are ready", findings)
    assert "voxcpm2  ready  Apache-2.0 (commercial use)" in omnifleet(fleet, "models")


def _refuse_what_is_for_another(fleet: ScriptedFleet) -> None:
    """The worker checks again: these settings lead the one model's jobs to the other's workers."""
    with Client(fleet.settings.model_copy(update={"models": "voxcpm2=audio-omni"})) as omni:
        job = omni.understand(question="Who is it?", language="en", model="voxcpm2")
        with pytest.raises(InvalidJob, match="the job is for voxcpm2, and this worker runs scripted") as refused:
            job.result(WAIT)
    assert refused.value.field == "model"


@pytest.fixture
def settings(redis_url: str, folder: Path) -> FleetSettings:
    return FleetSettings(redis_url=redis_url, storage=f"file://{folder}", models=MODELS)


@pytest.fixture
def redis(settings: FleetSettings) -> Iterator[Redis]:
    with Redis.from_url(settings.redis_url) as client:
        yield client


def report(settings: FleetSettings, queue: str) -> None:
    """Have a worker of that queue, and of no other, be ready."""
    with Redis.from_url(settings.redis_url) as redis:
        for key in redis.keys("omnifleet:worker-records:*"):  # type: ignore[union-attr]
            redis.delete(key)
        now = datetime.now(UTC)
        times = {"started_at": now, "reported_at": now}
        WorkerRegistry(redis, queue).report(WorkerRecord(name="w", version="1", state="ready", slots=1, **times))


def speak(settings: FleetSettings, text: str = "Hello", **options: object) -> JobHandle:
    """Sent by a client of its own, which remembers nobody."""
    with Client(settings) as omni:
        return omni.generate("tts", text, **options)  # type: ignore[arg-type]


def test_a_key_holds_across_routes(settings: FleetSettings, redis: Redis) -> None:
    report(settings, QUEUE)
    job = speak(settings, idempotency_key="order-7")
    report(settings, "audio-omni")

    assert speak(settings, idempotency_key="order-7").id == job.id
    assert (redis.llen(QUEUE), redis.llen("audio-omni")) == (1, 0)


def test_two_fleets_on_one_redis_have_queues_of_their_own(settings: FleetSettings, redis: Redis) -> None:
    staging = settings.model_copy(update={"queue": "staging"})
    report(settings, QUEUE)

    with pytest.raises(NoModelFor):
        speak(staging, "Привет", wait=False)
    speak(settings, "Привет", wait=False)
    speak(staging, "Привет")

    assert (redis.llen(QUEUE), redis.llen("staging.voxcpm2")) == (1, 1)


def test_who_waits_for_a_model_without_workers_is_told_of_which(settings: FleetSettings) -> None:
    report(settings, "audio-omni")
    with Client(settings) as omni:
        job = omni.generate("tts", "Привет")

        with pytest.raises(ResultTimeout, match="no worker of voxcpm2 lives") as late:
            job.result(1.0)

        assert job.is_unattended()
        assert f"OMNIFLEET_QUEUE={QUEUE}" in (late.value.remedy or "")
        assert not omni.generate("tts", "Hello").is_unattended()


def test_dead_letters_of_all_queues_are_listed_and_go_back_to_their_own(settings: FleetSettings, redis: Redis) -> None:
    job = read_job(
        {"schema_version": 8, "job_id": "sold", "namespace": "generate", "model": "voxcpm2"}
        | {"task": {"name": "tts", "text": "Привет"}}
    )
    letter = DeadLetter(job=job, reason="it killed 3 workers", worker="w:1", attempts=3)
    redis.hset(DEAD_KEY.format(queue=QUEUE), job.job_id, letter.model_dump_json())
    redis.set(STATE_KEY.format(job_id=job.job_id), failure_record(job.job_id, JobQuarantined("it killed 3 workers")))
    environment = {"OMNIFLEET_REDIS_URL": settings.redis_url, "OMNIFLEET_STORAGE": settings.storage}

    # Without OMNIFLEET_MODELS: this model ships.
    listed = CliRunner().invoke(app, ["dead", "list"], env=environment)
    replayed = CliRunner().invoke(app, ["dead", "replay", job.job_id], env=environment)

    assert "sold" in listed.stdout
    assert replayed.exit_code == 0
    assert (redis.llen(QUEUE), redis.hlen(DEAD_KEY.format(queue=QUEUE))) == (1, 0)
    with closing(CeleryTransport(settings)) as transport:
        assert transport.read(job.job_id).status is JobStatus.QUEUED


def test_dead_letters_of_a_model_that_nobody_names_are_listed(settings: FleetSettings, redis: Redis) -> None:
    queue = "audio-omni.mine"
    report(settings, queue)
    job = read_job(
        {"schema_version": 1, "job_id": "lost", "namespace": "generate", "task": {"name": "t2a", "text": "x"}}
    )
    letter = DeadLetter(job=job, reason="it killed 3 workers", worker="w:1", attempts=3)
    redis.hset(DEAD_KEY.format(queue=queue), job.job_id, letter.model_dump_json())
    redis.delete(*redis.keys("omnifleet:worker-records:*"))  # type: ignore[misc]
    environment = {"OMNIFLEET_REDIS_URL": settings.redis_url, "OMNIFLEET_STORAGE": settings.storage, "COLUMNS": "200"}

    listed = CliRunner().invoke(app, ["dead", "list"], env=environment)
    frame = CliRunner().invoke(app, ["top", "--once"], env=environment)

    assert "lost" in listed.stdout
    assert f"{queue}: 0 of 0 workers ready" in frame.stdout


def test_capabilities_that_workers_report_come_back(settings: FleetSettings, redis: Redis) -> None:
    now, model = datetime.now(UTC), SHIPPED["omnivoice"]
    with closing(WorkerRegistry(redis, "q")) as workers:
        times = {"started_at": now, "reported_at": now}
        workers.report(WorkerRecord(name="w", version="1", state="ready", slots=1, capabilities=model, **times))

        assert [one.record.capabilities for one in workers.all()] == [model]
