"""The fleet of docker/compose.yaml, from outside: it works, loses nothing, and gives nobody more than needed."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.exceptions import ClientError
from omnifleet import Client
from omnifleet_shared.keys import BROKER_PRIORITY, MODEL
from support import services
from support.deployment.composed import Fleet

RUNNING = ["redis", "minio", "exporter", "flower", "gateway", "worker"]


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_a_job_from_outside_comes_back(fleet: Fleet) -> None:
    with Client(fleet.client_settings) as omni:
        result = omni.generate("t2a", "rain on a tin roof", steps=3, seed=1).result(timeout=120)

        assert len(result.audio.read()) > 100_000
        assert len(urllib.request.urlopen(result.audio.url, timeout=10).read()) > 100_000


def test_nothing_is_lost_while_worker_and_redis_are_restarted(fleet: Fleet) -> None:
    with Client(fleet.client_settings) as omni:
        jobs = [omni.generate("t2a", f"sound number {number}", steps=10, seed=number) for number in range(12)]
        fleet.engine("kill", "--signal", "KILL", fleet.containers["worker"])
        fleet.engine("restart", fleet.containers["redis"])
        fleet.engine("start", fleet.containers["worker"], check=False)  # the engine may have done so already
        fleet.wait_until_ready()

        results = [job.result(timeout=300) for job in jobs]

    assert len({result.audio.uri for result in results}) == len(jobs)


def test_a_worker_that_is_stopped_ends_by_itself(fleet: Fleet) -> None:
    name = fleet.containers["worker"]

    fleet.engine("stop", name)

    # 137 is what the engine leaves of one that it had to kill.
    assert fleet.engine.inspect(name)["State"]["ExitCode"] == 0
    fleet.engine("start", name)
    fleet.wait_until_ready()


def test_every_container_is_hardened(fleet: Fleet) -> None:
    for service in RUNNING:
        found = fleet.engine.inspect(fleet.containers[service])
        assert found["HostConfig"]["ReadonlyRootfs"], service
        assert found["HostConfig"]["CapDrop"], service
        assert not found["HostConfig"]["CapAdd"], service
        assert "no-new-privileges" in " ".join(found["HostConfig"]["SecurityOpt"]), service


def test_our_processes_have_no_capabilities_and_no_root(fleet: Fleet) -> None:
    for service in ("worker", "exporter", "gateway"):
        status = fleet.engine("exec", fleet.containers[service], "cat", "/proc/1/status")
        assert re.search(r"^CapEff:\s+0+$", status, re.M), status
        assert re.search(r"^Uid:\s+10001\s", status, re.M), status


def test_redis_wants_a_password(fleet: Fleet) -> None:
    assert "NOAUTH" in fleet.engine("exec", "--env", "REDISCLI_AUTH=", fleet.containers["redis"], "redis-cli", "ping")


def test_the_exporter_has_what_keda_asks_for(fleet: Fleet) -> None:
    metrics = get(f"http://localhost:{fleet.settings['EXPORTER_PORT']}/metrics")

    for name in ("omnifleet_queue_jobs", "omnifleet_leased_jobs"):
        for priority in BROKER_PRIORITY:
            assert re.search(
                rf'^{name}{{priority="{priority}",queue="{MODEL}"}} \d|'
                rf'^{name}{{queue="{MODEL}",priority="{priority}"}} \d',
                metrics,
                re.M,
            ), metrics


def test_flower_wants_a_login(fleet: Fleet) -> None:
    url = f"http://localhost:{fleet.settings['FLOWER_PORT']}/"
    services.wait_until(
        lambda: fleet.is_healthy("flower", "python", "/opt/healthcheck.py", "http://127.0.0.1:5555/healthcheck"),
        60,
        "Flower",
    )

    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(url)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, fleet.settings["FLOWER_USER"], fleet.settings["FLOWER_PASSWORD"])
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(passwords))
    assert "omnifleet@" in opener.open(url + "workers", timeout=10).read().decode()


def test_the_gateway_wants_a_key_and_answers_who_has_one(fleet: Fleet) -> None:
    url = f"http://localhost:{fleet.settings['GATEWAY_PORT']}"
    services.wait_until(
        lambda: fleet.is_healthy("gateway", "python", "/opt/healthcheck.py", "http://127.0.0.1:8000/readyz"),
        60,
        "the gateway",
    )
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{url}/v1/models")
    key = fleet.engine("exec", fleet.containers["gateway"], "omnifleet", "keys", "add", "acme").strip()

    request = urllib.request.Request(
        f"{url}/v1/jobs?wait=120",
        b'{"task": "generate.t2a", "text": "rain", "seconds": 1, "steps": 2}',
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=150) as answer:
        assert b'"status":"succeeded"' in answer.read()


@pytest.fixture
def s3(fleet: Fleet) -> object:
    """With the keys that workers and clients have."""
    return boto3.client(
        "s3",
        endpoint_url=fleet.settings["OMNIFLEET_S3_ENDPOINT"],
        region_name="us-east-1",
        aws_access_key_id=fleet.settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=fleet.settings["AWS_SECRET_ACCESS_KEY"],
    )


class TestRights:
    """Of the user in MinIO."""

    def refused(self, s3: object, call: str, **arguments: object) -> bool:
        with pytest.raises(ClientError) as caught:
            getattr(s3, call)(**arguments)
        return str(caught.value.response["Error"]["Code"]) == "AccessDenied"

    def test_media_may_be_written_and_read(self, s3: object) -> None:
        s3.put_object(Bucket="omnifleet", Key="media/probe", Body=b"x")  # type: ignore[attr-defined]

        assert s3.get_object(Bucket="omnifleet", Key="media/probe")["Body"].read() == b"x"  # type: ignore[attr-defined]

    def test_nothing_may_be_deleted(self, s3: object) -> None:
        assert self.refused(s3, "delete_object", Bucket="omnifleet", Key="media/probe")

    def test_checkpoints_may_not_be_written(self, s3: object) -> None:
        assert self.refused(s3, "put_object", Bucket="omnifleet", Key="checkpoints/card.json", Body=b"x")

    def test_other_buckets_may_not_be_made(self, s3: object) -> None:
        assert self.refused(s3, "create_bucket", Bucket="another")
