"""A failover: the master dies, the sentinel names another, and client and worker go on with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from omnifleet import BrokerUnavailable, Client, FleetSettings, InvalidSetting
from redis import RedisError
from support import services
from support.fork_server import ForkServer

WAIT = 240.0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[ExitStack, services.RedisServer, int]]:
    """A master that can be taken down, its replica, and the port of a sentinel that watches them."""
    servers = [services.RedisServer(services.free_port(), tmp_path / name) for name in ("master", "replica")]
    for server in servers:
        server.folder.mkdir()
    port = services.free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nsentinel monitor mymaster 127.0.0.1 {servers[0].port} 1\n"
        "sentinel down-after-milliseconds mymaster 3000\nsentinel failover-timeout mymaster 5000\n"
    )
    with ExitStack() as master, ExitStack() as rest:
        master.enter_context(servers[0].running())
        rest.enter_context(servers[1].running())
        servers[1].client().replicaof("127.0.0.1", servers[0].port)
        rest.enter_context(services.process([shutil.which("redis-server") or "redis-server", config, "--sentinel"]))
        sentinel = services.RedisServer(port, tmp_path)
        services.wait_until(lambda: _knows_replica(sentinel), WAIT, "the sentinel knows the replica")
        yield master, servers[1], port


def _knows_replica(sentinel: services.RedisServer) -> bool:
    with suppress(RedisError):
        return len(sentinel.client().sentinel_slaves("mymaster")) == 1
    return False


def _is_master(server: services.RedisServer) -> bool:
    with suppress(RedisError):  # a replica that is promoted closes its connections
        return server.client().info("replication")["role"] == "master"
    return False


def test_a_failover_loses_neither_client_nor_worker(
    nodes: tuple[ExitStack, services.RedisServer, int], folder: Path, tmp_path: Path, fork_server: ForkServer
) -> None:
    master, replica, port = nodes
    sentinels = f"127.0.0.1:{port}"
    environment = {
        "OMNIFLEET_REDIS_SENTINELS": sentinels,
        "OMNIFLEET_STORAGE": f"file://{folder}",
        "OMNIFLEET_LEASE": "4",
    }
    settings = FleetSettings(redis_sentinels=sentinels, storage=f"file://{folder}")
    with (
        fork_server.worker(environment, tmp_path / "worker.log") as worker,
        Client(settings) as omni,
    ):
        worker.wait_until_ready()
        assert omni.understand(question="before?", max_new_tokens=1).result(WAIT).text
        running = omni.understand(question="meanwhile?", max_new_tokens=100)
        services.wait_until(lambda: running.progress().step > 2, WAIT, "progress")

        master.close()
        services.wait_until(lambda: _is_master(replica), WAIT, "the failover")

        assert running.result(WAIT).text
        assert _ask_until_it_is_taken(omni).result(WAIT).text


def _ask_until_it_is_taken(omni: Client):  # type: ignore[no-untyped-def]
    taken = []

    def ask() -> bool:
        with suppress(BrokerUnavailable):
            taken.append(omni.understand(question="after?", max_new_tokens=1))
        return bool(taken)

    services.wait_until(ask, WAIT, "a job is taken after the failover")
    return taken[0]


@pytest.mark.parametrize("addresses", ["", "nowhere", "host:port", "host:1,"])
def test_what_is_no_address_is_told(addresses: str, folder: Path) -> None:
    settings = FleetSettings(redis_sentinels=addresses, storage=f"file://{folder}")

    with pytest.raises(InvalidSetting, match="OMNIFLEET_REDIS_SENTINELS"):
        Client(settings)
