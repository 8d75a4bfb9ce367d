"""Redis behind TLS, a login or a unix socket: redis-py's connections and kombu's take the same way to it."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import pytest
from omnifleet import BrokerUnavailable, Client, FleetSettings, InvalidSetting
from omnifleet_shared.settings import load_settings
from support import PYTHONPATH, services
from support.fork_server import ForkServer
from support.tls.certificates import Certificates, tap, tls_front

WAIT = 240.0
Answer = Callable[..., str]
PASSWORD = "p@ss/w:rd#1%?&"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.create(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[services.RedisServer]:
    """A Redis that asks for a password."""
    socket = ("--unixsocket", str(tmp_path / "redis.sock"))
    server = services.RedisServer(services.free_port(), tmp_path, socket)
    with server.running():
        server.client().config_set("requirepass", PASSWORD)
        yield server


def url_of(port: int, options: str = "", scheme: str = "rediss") -> str:
    return f"{scheme}://:{quote(PASSWORD, safe='')}@localhost:{port}/1{options}"


@pytest.fixture
def answer(fork_server: ForkServer, folder: Path, tmp_path: Path) -> Iterator[Answer]:
    """What a client hears of a worker, both at this URL."""
    with ExitStack() as running:

        def ask(url: str, **more: str) -> str:
            shared = {"redis_url": url, "storage": f"file://{folder}", **more}
            environment = {f"OMNIFLEET_{name.upper()}": value for name, value in shared.items()}
            worker = fork_server.fork(environment, tmp_path / "worker.log")
            running.callback(os.kill, worker, signal.SIGKILL)
            with Client(load_settings(FleetSettings, **shared)) as omni:
                return omni.understand(question="who is there?", max_new_tokens=1).result(WAIT).text or ""

        yield ask


def test_client_and_worker_meet_over_tls(
    server: services.RedisServer, certificates: Certificates, answer: Answer
) -> None:
    with tls_front(server.port, certificates) as port:
        assert answer(url_of(port, f"?ssl_ca_certs={certificates.ca_file}"))


def test_a_server_may_want_a_certificate_of_its_clients(
    server: services.RedisServer, certificates: Certificates, folder: Path
) -> None:
    with tls_front(server.port, certificates, wants_client=True) as port:
        trusted = f"?ssl_ca_certs={certificates.ca_file}"
        own = certificates.issue("client@omnifleet.test")
        shown = f"{trusted}&ssl_certfile={own}&ssl_keyfile={own}"

        with Client(redis_url=url_of(port, shown), storage=f"file://{folder}") as omni:
            assert omni.understand("Who is there?").status() == "queued"
        with (
            pytest.raises(BrokerUnavailable),
            Client(redis_url=url_of(port, trusted), storage=f"file://{folder}") as omni,
        ):
            omni.understand("Who is there?")


@pytest.mark.parametrize(("name", "trusts"), [("localhost", False), ("elsewhere.example", True)])
def test_a_certificate_that_nobody_vouches_for_is_refused_for_sending_and_reading(
    name: str, trusts: bool, server: services.RedisServer, certificates: Certificates, folder: Path
) -> None:
    with tls_front(server.port, certificates, name=name) as port:
        url = url_of(port, f"?ssl_ca_certs={certificates.ca_file}" if trusts else "")
        with Client(redis_url=url, storage=f"file://{folder}") as omni:
            for use in (lambda: omni.understand("Who is there?"), lambda: omni.job("0" * 32).status()):
                with pytest.raises(InvalidSetting, match="ssl_ca_certs"):
                    use()


def test_nothing_is_sent_in_clear(folder: Path) -> None:
    with tap() as (port, seen), Client(redis_url=url_of(port), storage=f"file://{folder}") as omni:
        for use in (lambda: omni.understand("Who is there?"), lambda: omni.job("0" * 32).status()):
            with pytest.raises(BrokerUnavailable):
                use()

    handshake = b"\x16\x03"
    assert seen
    assert all(first.startswith(handshake) for first in seen)


def test_a_unix_socket_is_a_place_too(server: services.RedisServer, answer: Answer) -> None:
    assert answer(f"unix://:{quote(PASSWORD, safe='')}@{server.folder}/redis.sock?db=1")


def test_sentinels_behind_tls_and_a_login(
    server: services.RedisServer, certificates: Certificates, answer: Answer, tmp_path: Path
) -> None:
    port, watch = services.free_port(), "watch-this"
    config = tmp_path / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nrequirepass {watch}\n"
        f'sentinel monitor mymaster 127.0.0.1 {server.port} 1\nsentinel auth-pass mymaster "{PASSWORD}"\n'
    )
    command = [shutil.which("redis-server") or "redis-server", config, "--sentinel"]
    with services.process(command), tls_front(port, certificates) as front:
        sentinels = f"rediss://:{watch}@localhost:{front}?ssl_ca_certs={certificates.ca_file}"

        assert answer(url_of(server.port, scheme="redis"), redis_sentinels=sentinels)


@pytest.mark.parametrize("over", ["tls", "unix"])
def test_flower_reads_the_queue_the_same_way(
    over: str, server: services.RedisServer, certificates: Certificates, folder: Path, tmp_path: Path
) -> None:
    with tls_front(server.port, certificates) as port:
        urls = {
            "tls": url_of(port, f"?ssl_ca_certs={certificates.ca_file}"),
            "unix": f"unix://:{quote(PASSWORD, safe='')}@{tmp_path}/redis.sock",
        }
        with Client(redis_url=urls[over], storage=f"file://{folder}") as omni:
            omni.understand("Who is there?")
        page = services.free_port()
        environment = {
            "OMNIFLEET_REDIS_URL": urls[over],
            "FLOWER_BASIC_AUTH": "operator:long-enough",
            "PYTHONPATH": PYTHONPATH,
        }
        command = [sys.executable, "-m", "omnifleet", "flower", "--port", str(page)]
        with services.process(command, environment=environment, log=tmp_path / "flower.log"):
            services.wait_until(lambda: "audio-omni" in read_broker_page(page), WAIT, "Flower's page of the broker")


def read_broker_page(port: int) -> str:
    login = base64.b64encode(b"operator:long-enough").decode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/broker", headers={"Authorization": f"Basic {login}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as page:
            return page.read().decode()
    except OSError:
        return ""
