"""`omnifleet doctor` on fleets that are really broken."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from omnifleet import Client
from omnifleet.cli import app
from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.keys import SUSPECTS_KEY, WORKERS_FAIR_KEY, WORKERS_KINDS_KEY
from omnifleet_shared.settings import FleetSettings
from redis import Redis
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet
from typer.testing import CliRunner


def diagnose(environment: dict[str, str], *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and findings by check."""
    done = CliRunner().invoke(app, ["doctor", "--json", *options], env=environment)
    return done.exit_code, {one["check"]: one for one in json.loads(done.stdout)}


def faults(found: dict[str, dict[str, Any]]) -> set[str]:
    return {check for check, one in found.items() if one["level"] == "fault"}


def tell_of_worker(redis_url: str, name: str = "host:1", **changes: Any) -> None:
    """As a worker would that is ready."""
    now = datetime.now(UTC)
    fields = {"version": version("omnifleet"), "state": "ready", "started_at": now, "reported_at": now, "places": 16}
    workers = WorkerRegistry.connect(FleetSettings(redis_url=redis_url))
    workers.report(WorkerRecord.model_validate({"name": name, **fields, **changes}))
    workers.close()


@contextmanager
def redis_with(folder: Path, *options: str) -> Iterator[services.RedisServer]:
    with services.RedisServer(services.free_port(), folder, options).running() as server:
        yield server


@pytest.fixture
def environment(redis_url: str, folder: Path) -> dict[str, str]:
    """Of a fleet whose only fault is that no worker lives."""
    return {"OMNIFLEET_REDIS_URL": redis_url, "OMNIFLEET_STORAGE": f"file://{folder}"}


def test_a_fleet_that_works_has_no_fault(scripted: ScriptedFleet) -> None:
    scripted.start()
    workers = WorkerRegistry.connect(scripted.settings)
    services.wait_until(lambda: workers.capacity().workers == 1, WAIT, "a telling worker")
    workers.close()

    code, found = diagnose(scripted.environment, "--job")

    assert (code, faults(found)) == (0, set())
    assert found["workers"]["said"] == "1 of 1 are ready"
    assert found["job"]["said"].startswith("answered in")
    assert list((scripted.folder / "storage").rglob("probes/*")) == []


def test_a_fleet_without_workers_is_told_to_start_one(environment: dict[str, str]) -> None:
    code, found = diagnose(environment)

    assert (code, faults(found)) == (1, {"workers"})
    assert found["workers"]["said"] == "no worker lives"
    assert found["workers"]["fix"].startswith("Start one")


def test_a_worker_that_only_loads_is_no_answer(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url, state="loading")

    code, found = diagnose(environment)

    assert (code, found["workers"]["said"]) == (1, "0 of 1 are ready")


def test_a_wrong_password_is_said(tmp_path: Path, environment: dict[str, str]) -> None:
    with redis_with(tmp_path) as server:
        server.client().config_set("requirepass", "right")
        login = server.url.replace("redis://", "redis://:not-it@")
        code, found = diagnose(environment | {"OMNIFLEET_REDIS_URL": login})

    assert (code, faults(found)) == (1, {"redis"})
    assert "refuses the password" in found["redis"]["said"]
    assert "not-it" not in json.dumps(found)


def test_a_redis_that_is_not_there_is_said_and_the_rest_is_looked_at(environment: dict[str, str]) -> None:
    nowhere = {"OMNIFLEET_REDIS_URL": f"redis://127.0.0.1:{services.free_port()}/0"}

    code, found = diagnose(environment | nowhere)

    assert (code, faults(found)) == (1, {"redis"})
    assert found["storage"]["level"] == "ok"


def test_a_redis_that_throws_records_away_is_a_fault(tmp_path: Path, environment: dict[str, str]) -> None:
    with redis_with(tmp_path, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru") as server:
        tell_of_worker(server.url)
        code, found = diagnose(environment | {"OMNIFLEET_REDIS_URL": server.url})

    assert (code, faults(found)) == (1, {"redis eviction"})
    assert "noeviction" in found["redis eviction"]["fix"]


def test_a_redis_that_writes_nothing_to_disk_is_a_fault(tmp_path: Path, environment: dict[str, str]) -> None:
    with redis_with(tmp_path, "--appendonly", "no") as server:
        tell_of_worker(server.url)
        code, found = diagnose(environment | {"OMNIFLEET_REDIS_URL": server.url})

    assert (code, faults(found)) == (1, {"redis persistence"})
    assert found["redis persistence"]["fix"] == "Set appendonly yes"


def test_a_redis_that_is_nearly_full_is_a_fault(tmp_path: Path, environment: dict[str, str]) -> None:
    with redis_with(tmp_path) as server:
        tell_of_worker(server.url)
        server.client().set("ballast", b"x" * 64 * 2**20)
        used = server.client().info("memory")["used_memory"]
        server.client().config_set("maxmemory", int(used / 0.95))
        code, found = diagnose(environment | {"OMNIFLEET_REDIS_URL": server.url})

    assert (code, faults(found)) == (1, {"redis memory"})


@pytest.mark.parametrize(
    ("number", "said", "cure"),
    [
        (errno.ENOSPC, "no room", "Make room"),
        (errno.EROFS, "read-only", "Mount it for writing"),
        (errno.EACCES, "refuses", "Give this user the right to write there"),
        (errno.EIO, "does not answer", "See that its disk is mounted"),
    ],
)
def test_a_folder_that_takes_nothing_names_its_cure(
    environment: dict[str, str], redis_url: str, monkeypatch: pytest.MonkeyPatch, number: int, said: str, cure: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    tell_of_worker(redis_url)
    monkeypatch.setattr(shutil, "copyfileobj", refuse)

    code, found = diagnose(environment)

    assert (code, faults(found)) == (1, {"storage"})
    assert said in found["storage"]["said"]
    assert cure in found["storage"]["fix"]


def test_a_storage_that_is_down_names_its_cure(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url)
    down = {"OMNIFLEET_STORAGE": "s3://media", "OMNIFLEET_S3_ENDPOINT": f"http://127.0.0.1:{services.free_port()}"}
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1"}

    code, found = diagnose(environment | down | keys)

    assert (code, faults(found)) == (1, {"storage"})
    assert "OMNIFLEET_S3_ENDPOINT leads there" in found["storage"]["fix"]


def test_a_bucket_that_is_not_there_is_said(
    environment: dict[str, str], redis_url: str, bucket: str, s3_server: services.S3Server
) -> None:
    tell_of_worker(redis_url)
    missing = {"OMNIFLEET_STORAGE": f"s3://{bucket}-not-made", "OMNIFLEET_S3_ENDPOINT": s3_server.endpoint}

    code, found = diagnose(environment | missing)

    assert (code, faults(found)) == (1, {"storage"})
    assert "NoSuchBucket" in found["storage"]["said"]


def test_a_bucket_is_written_read_and_left_as_it_was(
    environment: dict[str, str], redis_url: str, bucket: str, s3_server: services.S3Server
) -> None:
    tell_of_worker(redis_url)
    there = {"OMNIFLEET_STORAGE": f"s3://{bucket}/omni", "OMNIFLEET_S3_ENDPOINT": s3_server.endpoint}

    code, found = diagnose(environment | there)

    assert (code, faults(found)) == (0, set())
    assert found["storage rights"]["said"] == "write, read and delete"
    assert found["clock of the storage"]["level"] == "ok"
    assert s3_server.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.skipif(services.s3_server_name() == "moto", reason="moto's server takes any credentials")
def test_wrong_keys_of_the_storage_are_said(
    environment: dict[str, str], redis_url: str, bucket: str, s3_server: services.S3Server
) -> None:
    tell_of_worker(redis_url)
    there = {"OMNIFLEET_STORAGE": f"s3://{bucket}", "OMNIFLEET_S3_ENDPOINT": s3_server.endpoint}

    code, found = diagnose(environment | there | {"AWS_SECRET_ACCESS_KEY": "not-it-at-all"})

    assert (code, faults(found)) == (1, {"storage"})
    assert found["storage"]["fix"].startswith("Check credentials")


def test_an_older_worker_is_a_fault_and_a_newer_one_a_note(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url, "older:1", version="0.0.1")
    tell_of_worker(redis_url, "newer:1", version="99.0")

    code, found = diagnose(environment)

    assert (code, faults(found)) == (1, {"worker older:1"})
    assert found["worker older:1"]["fix"] == "Upgrade the workers before the producers"
    assert found["worker newer:1"]["level"] == "note"


def test_a_worker_with_a_wrong_clock_is_a_fault(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url, reported_at=datetime.now(UTC) - timedelta(minutes=5))

    code, found = diagnose(environment)

    assert (code, faults(found)) == (1, {"clock of worker host:1"})
    assert "behind" in found["clock of worker host:1"]["said"]


def test_a_worker_that_is_unwell_is_a_fault(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url)
    tell_of_worker(redis_url, "hung:1", state="unwell", reason="the engine has not stepped for 400 s")

    code, found = diagnose(environment)

    assert (code, faults(found)) == (1, {"worker hung:1"})


def test_jobs_that_wait_to_run_alone_are_a_note(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url)
    with Redis.from_url(redis_url) as redis:
        redis.lpush(SUSPECTS_KEY.format(queue="audio-omni"), "audio-omni\nmessage")

    code, found = diagnose(environment)

    assert (code, found["suspects"]["level"]) == (0, "note")
    assert found["suspects"]["said"].startswith("1 jobs wait to run alone")


def test_jobs_of_tenants_that_only_older_workers_could_take_are_a_fault(
    environment: dict[str, str], redis_url: str
) -> None:
    with Client(FleetSettings(redis_url=redis_url, storage=environment["OMNIFLEET_STORAGE"]), tenant="acme") as omni:
        omni.understand(question="?")
    tell_of_worker(redis_url)
    assert "tenants" not in faults(diagnose(environment)[1])
    with Redis.from_url(redis_url) as redis:
        redis.delete(WORKERS_FAIR_KEY.format(queue="audio-omni"))

    _, found = diagnose(environment)

    assert found["tenants"]["said"].startswith("1 jobs of tenants wait where")


def test_answers_that_only_older_workers_could_give_are_a_fault(environment: dict[str, str], redis_url: str) -> None:
    with Client(FleetSettings(redis_url=redis_url, storage=environment["OMNIFLEET_STORAGE"])) as omni:
        omni.understand(question="?")
    tell_of_worker(redis_url)
    assert "answers" not in faults(diagnose(environment)[1])
    with Redis.from_url(redis_url) as redis:
        redis.delete(WORKERS_KINDS_KEY.format(queue="audio-omni"))

    _, found = diagnose(environment)

    assert found["answers"]["said"].startswith("1 jobs that are answered in words wait where")


def test_two_revisions_of_the_checkpoint_are_a_note(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url, "a:1", checkpoint="audio-omni", revision="1")
    tell_of_worker(redis_url, "b:1", checkpoint="audio-omni", revision="2")

    code, found = diagnose(environment)

    assert code == 0
    assert found["checkpoint"]["said"] == "several revisions answer jobs: audio-omni 1, audio-omni 2"


def test_people_read_a_line_a_finding_and_what_to_do(environment: dict[str, str]) -> None:
    done = CliRunner().invoke(app, ["doctor"], env=environment)

    assert done.exit_code == 1
    assert "✓ redis persistence: AOF on" in done.stdout
    assert "✗ workers: no worker lives\n    → Start one" in done.stdout


def test_a_worker_that_stores_elsewhere_is_a_fault(environment: dict[str, str], redis_url: str) -> None:
    tell_of_worker(redis_url, storage="s3://media/omni")
    tell_of_worker(redis_url, "host:2", storage=environment["OMNIFLEET_STORAGE"])
    tell_of_worker(redis_url, "host:3")

    code, found = diagnose(environment)

    assert (code, faults(found)) == (1, {"storage of worker host:1"})
    said = found["storage of worker host:1"]
    assert said["said"].startswith(f"it stores in s3://media/omni, here it is {environment['OMNIFLEET_STORAGE']}")
    assert said["fix"] == "Give both the same OMNIFLEET_STORAGE"


def test_a_worker_tells_where_it_stores(scripted: ScriptedFleet) -> None:
    scripted.start()
    workers = WorkerRegistry.connect(scripted.settings)
    services.wait_until(lambda: workers.capacity().workers == 1, WAIT, "a telling worker")

    assert [one.record.storage for one in workers.all()] == [scripted.environment["OMNIFLEET_STORAGE"]]
    workers.close()


@pytest.mark.parametrize("works", [True, False])
def test_a_link_is_fetched_as_anybody_would(
    environment: dict[str, str], redis_url: str, bucket: str, s3_server: services.S3Server, works: bool
) -> None:
    tell_of_worker(redis_url)
    public = s3_server.endpoint if works else f"http://127.0.0.1:{services.free_port()}"
    place = {"OMNIFLEET_STORAGE": f"s3://{bucket}/m", "OMNIFLEET_S3_ENDPOINT": s3_server.endpoint}

    code, found = diagnose(environment | place | {"OMNIFLEET_S3_PUBLIC_ENDPOINT": public})

    assert (code, faults(found)) == ((0, set()) if works else (1, {"links"}))
    assert found["storage"]["level"] == found["storage rights"]["level"] == "ok"
