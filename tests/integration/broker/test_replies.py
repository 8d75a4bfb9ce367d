"""What a real Redis says when it fails a call, as the client's errors: an outage that passes, or a refusal in words."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from omnifleet import (
    AsyncClient,
    BrokerRefused,
    BrokerUnavailable,
    Client,
    FleetSettings,
    InvalidSetting,
    OmnifleetError,
)
from omnifleet_shared.redis_client import connect_redis, typed_redis_errors
from support import services


@pytest.fixture
def server(tmp_path: Path) -> Iterator[services.RedisServer]:
    """A Redis that the test may spoil."""
    with _server(tmp_path / "redis") as running:
        yield running


@contextmanager
def _server(folder: Path, *options: str, durable: bool = True) -> Iterator[services.RedisServer]:
    folder.mkdir()
    port = next(port for port in iter(services.free_port, 0) if port < 55_000)  # a cluster needs one 10,000 above too
    with services.RedisServer(port, folder, options, durable).running() as running:
        yield running


def _settings(url: str, folder: Path) -> FleetSettings:
    return FleetSettings(redis_url=url, storage=f"file://{folder}", redis_timeout=20)


def _submission_fails(settings: FleetSettings) -> OmnifleetError:
    with Client(settings) as omni, pytest.raises(OmnifleetError) as caught:
        omni.understand(question="Is anybody there?")
    return caught.value


class TestOutages:
    def test_a_replica(self, server: services.RedisServer, tmp_path: Path, folder: Path) -> None:
        with _server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(server.port)) as replica:
            error = _submission_fails(_settings(replica.url, folder))

        assert isinstance(error, BrokerUnavailable)
        assert error.details["reply"] == "READONLY"
        assert "replica" in str(error)
        assert "that Redis runs" not in str(error)

    def test_a_replica_is_left_as_soon_as_another_server_has_its_address(
        self, server: services.RedisServer, tmp_path: Path, folder: Path
    ) -> None:
        with (
            _server(tmp_path / "other") as other,
            services.Proxy(server.port).running() as address,
            Client(_settings(f"redis://127.0.0.1:{address.port}/0", folder)) as omni,
        ):
            omni.understand(question="Before the failover?")
            server.client().execute_command("REPLICAOF", "127.0.0.1", other.port)
            address.target = other.port  # as a managed Redis's name leads to its new master

            after = omni.understand(question="After it?")

            assert other.client().exists(f"celery-task-meta-{after.id}")

    def test_full(self, server: services.RedisServer, folder: Path) -> None:
        server.client().config_set("maxmemory", 1)

        error = _submission_fails(_settings(server.url, folder))

        assert isinstance(error, BrokerUnavailable)
        assert error.details["reply"] == "OOM"
        assert "Raise its maxmemory" in str(error)

    def test_a_disk_that_is_full(self, tmp_path: Path, folder: Path) -> None:
        with _server(tmp_path / "redis", durable=False) as server:
            control = server.client()
            control.config_set("save", "1 1")
            control.set("one", "change")
            shutil.rmtree(server.folder)  # there is nowhere to save to
            services.wait_until(lambda: _save_fails(control), what="a save that fails")

            error = _submission_fails(_settings(server.url, folder))

        assert isinstance(error, BrokerUnavailable)
        assert error.details["reply"] == "MISCONF"
        assert "disk" in str(error)

    def test_a_script_that_takes_long(self, server: services.RedisServer, folder: Path) -> None:
        server.client().config_set("lua-time-limit", 50)
        script = threading.Thread(target=_run_for, args=(server.port, 600.0))
        script.start()
        services.wait_until(lambda: _is_busy(server), what="a busy Redis")

        error = _submission_fails(_settings(server.url, folder))
        server.client().script_kill()
        script.join()

        assert isinstance(error, BrokerUnavailable)
        assert error.details["reply"] == "BUSY"

    def test_no_connection_left(self, server: services.RedisServer, folder: Path) -> None:
        with server.client() as holder:
            holder.config_set("maxclients", 1)

            error = _submission_fails(_settings(server.url, folder))

        assert isinstance(error, BrokerUnavailable)
        assert error.details["reply"] == "MAXCLIENTS"

    def test_too_few_replicas(self, server: services.RedisServer, folder: Path) -> None:
        server.client().config_set("min-replicas-to-write", 1)

        error = _submission_fails(_settings(server.url, folder))

        assert isinstance(error, BrokerUnavailable)
        assert error.details["reply"] == "NOREPLICAS"

    def test_a_server_that_lost_its_master_while_a_command_blocked(self, server: services.RedisServer) -> None:
        demotion = threading.Timer(0.5, lambda: server.client().execute_command("REPLICAOF", "127.0.0.1", "1"))
        with connect_redis(FleetSettings(redis_url=server.url, redis_timeout=30)) as blocked:
            demotion.start()
            with pytest.raises(BrokerUnavailable) as caught, typed_redis_errors():
                blocked.brpop(["nothing"], 20)

        assert caught.value.details["reply"] in {"UNBLOCKED", "READONLY"}  # the second, where it was tried again

    def test_nobody_listens(self, folder: Path) -> None:
        error = _submission_fails(_settings(f"redis://127.0.0.1:{services.free_port()}/0", folder))

        assert isinstance(error, BrokerUnavailable)
        assert "that Redis runs" in str(error)


class TestRefusals:
    @pytest.mark.parametrize(
        ("rights", "reply"),
        [(["~*", "&*", "+@all", "-evalsha", "-eval"], "NOPERM"), (["~*", "&*", "+@all", "-set"], "NOPERM")],
        ids=["no scripts", "no writes"],
    )
    def test_a_right_that_is_missing(
        self, server: services.RedisServer, folder: Path, rights: list[str], reply: str
    ) -> None:
        server.client().execute_command("ACL", "SETUSER", "producer", "reset", "on", ">secret-word", *rights)

        error = _submission_fails(_settings(f"redis://producer:secret-word@127.0.0.1:{server.port}/0", folder))

        assert isinstance(error, BrokerRefused)
        assert error.details["reply"] == reply
        assert "Rights in Redis" in str(error)
        assert "secret-word" not in str(error)

    def test_nobody_waits_for_a_right(self, server: services.RedisServer, folder: Path) -> None:
        server.client().execute_command(
            "ACL", "SETUSER", "producer", "reset", "on", ">pw", "~*", "&*", "+@all", "-mget"
        )
        with Client(_settings(f"redis://producer:pw@127.0.0.1:{server.port}/0", folder)) as omni:
            job = omni.understand(question="Is anybody there?")

            start = time.monotonic()
            with pytest.raises(BrokerRefused, match="mget"):
                job.result(timeout=60)
            assert time.monotonic() - start < 30

    def test_nobody_waits_for_a_right_in_an_event_loop(self, server: services.RedisServer, folder: Path) -> None:
        _add_user(server, "+@all", "-mget")

        async def wait() -> None:
            async with AsyncClient(_settings(f"redis://producer:pw@127.0.0.1:{server.port}/0", folder)) as omni:
                job = await omni.understand(question="Is anybody there?")
                await job.result(timeout=60)

        with pytest.raises(BrokerRefused, match="mget"):
            asyncio.run(wait())

    @pytest.mark.parametrize(
        ("login", "reply"), [("", "NOAUTH"), (":wrong@", "WRONGPASS")], ids=["no password", "wrong password"]
    )
    def test_a_password(self, server: services.RedisServer, folder: Path, login: str, reply: str) -> None:
        server.client().config_set("requirepass", "right")

        error = _submission_fails(_settings(f"redis://{login}127.0.0.1:{server.port}/0", folder))

        assert isinstance(error, BrokerRefused)
        assert isinstance(error, InvalidSetting)
        assert error.details["reply"] == reply

    def test_a_cluster(self, tmp_path: Path, folder: Path) -> None:
        with _server(tmp_path / "redis", "--cluster-enabled", "yes") as server:
            control = server.client()
            control.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            services.wait_until(lambda: control.cluster("INFO")["cluster_state"] == "ok", what="the cluster")

            error = _submission_fails(_settings(server.url, folder))

        assert isinstance(error, BrokerRefused)
        assert "cluster mode" in str(error)

    def test_a_key_of_somebody_else(self, server: services.RedisServer, folder: Path) -> None:
        server.client().set("audio-omni", "not a list")

        error = _submission_fails(_settings(server.url, folder))

        assert isinstance(error, BrokerRefused)
        assert "WRONGTYPE" in str(error)


def _save_fails(control: Any) -> bool:
    with suppress(redis.ResponseError):
        control.execute_command("BGSAVE")
    return bool(control.info("persistence")["rdb_last_bgsave_status"] != "ok")


def _add_user(server: services.RedisServer, *rights: str) -> None:
    server.client().execute_command("ACL", "SETUSER", "producer", "reset", "on", ">pw", "~*", "&*", *rights)


def _run_for(port: int, seconds: float) -> None:
    loop = f"local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < {seconds} do end"
    with suppress(redis.RedisError):
        redis.Redis(port=port, socket_timeout=600).eval(loop, 0)


def _is_busy(server: services.RedisServer) -> bool:
    try:
        server.client().ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False
