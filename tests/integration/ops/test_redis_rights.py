"""The users of docker/redis.acl: each may do its work and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from omnifleet import AsyncClient, Client, FleetSettings, JobCancelled, JobStatus, QueueFull, batch
from omnifleet.ops.exporter import FleetCollector
from omnifleet_shared.broker.celery_app import create_app
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.keys import MODEL
from support import processes, scripted_fleet, services
from support.gateway.process import gateway, new_key
from support.markdown import ROOT
from support.scripted_fleet import WAIT, ScriptedFleet

USERS = {line.split()[1]: line.split()[2:] for line in (ROOT / "docker/redis.acl").read_text().splitlines()}
OTHERS_DATA = "shop:customers"


@pytest.fixture
def fleet(scripted: ScriptedFleet) -> Iterator[ScriptedFleet]:
    """A fleet whose Redis knows these users, and holds something of somebody else."""
    control = scripted.redis.client()
    control.set(OTHERS_DATA, "theirs")
    for name, rules in USERS.items():
        if name != "default":
            control.execute_command("ACL", "SETUSER", name, "reset", *rules)
    control.execute_command("ACL", "LOG", "RESET")
    yield scripted
    # redis-py names itself to the server where it may, and does without elsewhere.
    log = [one for one in control.acl_log() if not one["object"].startswith("client")]
    assert [f"{one['username']} {one['reason']} {one['object']}" for one in log] == []


def url_of(fleet: ScriptedFleet, user: str) -> str:
    return f"redis://{user}:{user}-password@127.0.0.1:{fleet.redis.port}/0"


def settings_of(fleet: ScriptedFleet, user: str, **more: Any) -> FleetSettings:
    return FleetSettings(redis_url=url_of(fleet, user), storage=fleet.settings.storage, lease=2, **more)


def start_worker(fleet: ScriptedFleet) -> None:
    fleet.start(OMNIFLEET_REDIS_URL=url_of(fleet, "worker"))


def test_a_producer_and_a_worker_do_jobs(fleet: ScriptedFleet, tmp_path: Path) -> None:
    start_worker(fleet)
    with Client(settings_of(fleet, "producer", producer="shop", max_unfinished=50)) as omni:
        job = omni.generate("t2a", "rain", steps=30, idempotency_key="order-7")
        long = omni.understand(question="How long is it?", max_new_tokens=4096)
        assert omni.generate("t2a", "rain", steps=30, idempotency_key="order-7").id == job.id
        assert job.result(WAIT).audio.seconds
        assert job.progress().steps == 30
        assert job.callback() is None
        services.wait_until(lambda: long.status() is JobStatus.RUNNING, WAIT, "a running job")
        long.cancel()
        with pytest.raises(JobCancelled):
            long.result(WAIT)
        questions = [batch.understand(question=f"Is it {number}?", max_new_tokens=1) for number in range(4)]
        many = list(omni.batch(questions))
        assert [one.error for one in many] == [None] * 4
    asyncio.run(_ask(settings_of(fleet, "producer")))


async def _ask(settings: FleetSettings) -> None:
    async with AsyncClient(settings) as omni:
        job = await omni.understand(question="Who is it?", max_new_tokens=1)
        assert (await job.result(WAIT)).text


def test_the_workers_of_a_second_model_do_jobs_and_hear_commands(fleet: ScriptedFleet) -> None:
    model, queue = "voxcpm2", f"{MODEL}.voxcpm2"
    card = {"name": model, "revision": "1", "licence": "MIT", "commercial_use": True, "languages": ["en"]}
    start_worker(fleet)
    url = url_of(fleet, "worker")
    other = fleet.start(OMNIFLEET_REDIS_URL=url, OMNIFLEET_QUEUE=queue, SCRIPTED_CARD=json.dumps(card))
    with Client(settings_of(fleet, "producer", models=f"{MODEL},{model}")) as omni:
        services.wait_until(lambda: all(one.live for one in omni.models()), WAIT, "two models")
        answer = omni.understand(question="Who is it?", max_new_tokens=1, model=model).result(WAIT)
        usual = omni.understand(question="Who is it?", max_new_tokens=1).result(WAIT)

    assert answer.text == f"Who is it? by {other.pid}"
    assert usual.text != answer.text
    assert f"{queue}: 1 of 1 workers ready" in _omnifleet(fleet, "top", "--once").stdout
    with closing(FleetCollector(settings_of(fleet, "operator"))) as collector:
        samples = [one for family in collector.collect() for one in family.samples]
    assert {one.labels["queue"] for one in samples if "queue" in one.labels} == {MODEL, queue}
    app = create_app(settings_of(fleet, "flower", queue=queue))
    assert list(app.control.inspect(timeout=WAIT, limit=1).ping() or {})


@pytest.mark.parametrize("user", ["worker", "flower"])
def test_the_channels_of_every_model_that_ships_are_there(user: str) -> None:
    queues = [FleetSettings().queue_of(model) for model in SHIPPED]

    wanted = {f"&/0.omnifleet.{queue}.{channel}" for queue in queues for channel in ("pidbox", "events/*")}

    assert wanted <= set(USERS[user])


def test_a_job_of_a_lost_worker_comes_again(fleet: ScriptedFleet) -> None:
    lost = fleet.start(OMNIFLEET_REDIS_URL=url_of(fleet, "worker"))
    with Client(settings_of(fleet, "producer"), tenant="acme") as omni:
        job = omni.understand(question="Who is it?", max_new_tokens=40)
        services.wait_until(lambda: job.status() is JobStatus.RUNNING, WAIT, "a running job")
        lost.kill()
        start_worker(fleet)

        assert job.result(WAIT).attempts == 2


def test_the_limit_of_a_producer_holds(fleet: ScriptedFleet) -> None:
    with Client(settings_of(fleet, "producer", producer="shop", max_unfinished=1)) as omni:
        omni.understand(question="Who is it?")
        with pytest.raises(QueueFull):
            omni.understand(question="And who is that?")


@pytest.mark.usefixtures("one_day")
def test_a_gateway_takes_jobs_within_a_quota_and_lists_them(fleet: ScriptedFleet) -> None:
    environment = fleet.environment | {"OMNIFLEET_REDIS_URL": url_of(fleet, "producer")}
    key = new_key(url_of(fleet, "operator"), quota=2)
    with gateway(environment, fleet.folder / "gateway.log", key=key) as asked:
        sent = [asked.post("/v1/jobs", {"task": "generate.t2a", "text": "rain"}) for _ in range(3)]
        refused = asked.post("/v1/jobs", {"task": "generate.t2a", "text": "rain", "steps": 0})
        listed = asked.get("/v1/jobs").json["data"]

    assert [one.status for one in sent] == [202, 202, 429]
    assert refused.status in (400, 429)
    assert [one["id"] for one in listed] == [one.json["id"] for one in reversed(sent[:2])]


def test_an_operator_sees_and_mends(fleet: ScriptedFleet) -> None:
    start_worker(fleet)
    services.wait_until(lambda: "1 of 1 are ready" in _omnifleet(fleet, "doctor").stdout, WAIT, "a worker that reports")
    for command in (["doctor", "--job"], ["top", "--once"], ["dead", "list"], ["storage", "gc", "--dry-run"]):
        done = _omnifleet(fleet, *command)
        assert done.returncode == 0, done.stdout + done.stderr
    with closing(FleetCollector(settings_of(fleet, "operator"))) as collector:
        [up, *others] = collector.collect()
        assert up.samples[0].value == 1
        assert others


def _omnifleet(fleet: ScriptedFleet, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | fleet.environment | {"OMNIFLEET_REDIS_URL": url_of(fleet, "operator")}
    return subprocess.run(
        [sys.executable, "-m", "omnifleet", *command], env=environment, capture_output=True, text=True, timeout=WAIT
    )


def test_flower_shows_workers_and_jobs(fleet: ScriptedFleet) -> None:
    start_worker(fleet)
    port = services.free_port()
    environment = fleet.environment | {
        "OMNIFLEET_REDIS_URL": url_of(fleet, "flower"),
        "FLOWER_BASIC_AUTH": "operator:a-long-password",
    }
    command = [sys.executable, "-m", "omnifleet", "flower", "--host", "127.0.0.1", "--port", str(port)]
    with processes.process(command, environment=environment):
        services.wait_until(lambda: scripted_fleet.page(port, "/healthcheck")[0] == 200, WAIT, "Flower")
        services.wait_until(lambda: "scripted-0@" in _read(port, "/workers?json=1"), WAIT, "the worker")
        job = fleet.omni.understand(question="Who is it?", max_new_tokens=1)
        job.result(WAIT)
        services.wait_until(lambda: job.id in _read(port, "/api/tasks"), WAIT, "the job")
        state = json.loads(_read(port, "/api/tasks"))[job.id]["state"]
    assert state in ("RECEIVED", "STARTED", "SUCCESS")


def _read(port: int, path: str) -> str:
    login = base64.b64encode(b"operator:a-long-password").decode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("user", sorted(USERS.keys() - {"default"}))
@pytest.mark.parametrize(
    "command",
    [f"GET {OTHERS_DATA}", "FLUSHALL", "CONFIG GET requirepass", "KEYS *", "ACL LIST", "MONITOR"],
)
def test_nobody_may_do_more(scripted: ScriptedFleet, user: str, command: str) -> None:
    scripted.redis.client().execute_command("ACL", "SETUSER", user, "reset", *USERS[user])
    with redis.Redis.from_url(url_of(scripted, user)) as client, pytest.raises(redis.ResponseError, match="permission"):
        client.execute_command(*command.split())


def test_a_flower_may_not_read_results(scripted: ScriptedFleet) -> None:
    scripted.redis.client().execute_command("ACL", "SETUSER", "flower", "reset", *USERS["flower"])
    with (
        redis.Redis.from_url(url_of(scripted, "flower")) as client,
        pytest.raises(redis.ResponseError, match="permission"),
    ):
        client.get("celery-task-meta-1")


def test_everybody_else_may_do_nothing() -> None:
    assert USERS["default"] == ["off"]
