"""URLs of Redis: what redis-py and kombu are both told, and what is refused before a password leaves the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection
from omnifleet_shared.errors import InvalidSetting
from omnifleet_shared.redis_url import RedisAddress, redis_address, sentinels
from omnifleet_shared.settings import FleetSettings


def address(url: str) -> RedisAddress:
    return redis_address(FleetSettings(redis_url=url))


@pytest.mark.parametrize(
    ("url", "parameters"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "db": 0}),
        ("redis://redis.example:6380/3", {"host": "redis.example", "port": 6380, "db": 3}),
        ("redis://redis.example?db=3", {"host": "redis.example", "port": 6379, "db": 3}),
        ("redis://[::1]:6380", {"host": "::1", "port": 6380, "db": 0}),
        ("redis://:p%40ss@redis.example", {"password": "p@ss", "username": None}),
        ("redis://worker:secret@redis.example", {"password": "secret", "username": "worker"}),
        ("unix:///run/redis.sock", {"unix_socket_path": "/run/redis.sock", "db": 0}),
        ("unix://:secret@/run/redis.sock?db=2", {"unix_socket_path": "/run/redis.sock", "db": 2, "password": "secret"}),
        ("rediss://redis.example", {"ssl": True, "ssl_cert_reqs": "required", "ssl_check_hostname": True}),
        ("rediss://redis.example?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": "none", "ssl_check_hostname": False}),
        ("rediss://redis.example?ssl_check_hostname=false", {"ssl_cert_reqs": "required", "ssl_check_hostname": False}),
    ],
)
def test_a_url_becomes_parameters_of_redis_py(url: str, parameters: dict[str, Any]) -> None:
    found = address(url).parameters

    assert {name: found[name] for name in parameters} == parameters


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis://localhost/zero", "the database is not a number"),
        ("redis://localhost?db=-1", "the database is not a number"),
        ("redis://localhost?max_connections=5", "the option 'max_connections' is not known"),
        ("redis://localhost?ssl_cert_reqs=none", "ssl_cert_reqs has no meaning without TLS"),
        ("rediss://localhost?ssl_cert_reqs=perhaps", "ssl_cert_reqs='perhaps' is not known"),
        ("rediss://localhost?ssl_check_hostname=perhaps", "ssl_check_hostname='perhaps' is not known"),
        ("rediss://localhost?ssl_ca_certs=/nowhere.pem", "there is no file /nowhere.pem"),
        ("unix://run/redis.sock", "a unix socket is named by its whole path"),
        ("redis+socket:///run/redis.sock", "this is no URL of a Redis"),
    ],
)
def test_what_one_of_the_connections_could_not_follow_is_refused(url: str, problem: str) -> None:
    with pytest.raises(InvalidSetting, match="OMNIFLEET_REDIS_URL") as caught:
        address(url)

    assert problem in str(caught.value)


@pytest.mark.parametrize("password", ["p/ss-W0RD", "p#ss-W0RD", "p[ss-W0RD", "p?ss-W0RD=1", "12/ss-W0RD"])
def test_a_password_that_is_not_quoted_is_refused_without_showing_it(password: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        address(f"redis://:{password}@localhost/0")

    assert "W0RD" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_an_address_does_not_show_its_password() -> None:
    assert "secret" not in repr(address("rediss://worker:secret@localhost"))


@given(
    user=st.text(st.characters(codec="utf-8"), max_size=8),
    password=st.text(st.characters(codec="utf-8"), min_size=1, max_size=12),
    database=st.integers(0, 99),
    scheme=st.sampled_from(["redis", "rediss"]),
)
def test_kombu_is_told_the_same_as_redis_py(user: str, password: str, database: int, scheme: str) -> None:
    url = f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@redis.example:6380/{database}"

    found = address(url)
    kombu = Connection(found.kombu_url, ssl=found.tls or False)

    assert (found.username or "", found.password) == (user, password)
    assert (kombu.userid or "", kombu.password, kombu.virtual_host) == (user, password, str(database))
    assert (kombu.hostname, kombu.port) == (found.host, found.port)
    assert bool(kombu.ssl) == (scheme == "rediss")


def test_sentinels_may_want_a_login_and_tls(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()

    found = sentinels(FleetSettings(redis_sentinels=f"rediss://watch:secret@a:1,b:2?ssl_ca_certs={ca}"))

    assert found is not None
    assert found.hosts == (("a", 1), ("b", 2))
    assert found.login == {
        "username": "watch",
        "password": "secret",
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": str(ca),
    }


@pytest.mark.parametrize("value", ["watch:secret@a:1", "a:1?ssl_ca_certs=x", "http://a:1", "redis://a", "redis://@:1"])
def test_what_is_no_address_of_sentinels_is_refused(value: str) -> None:
    with pytest.raises(InvalidSetting, match="OMNIFLEET_REDIS_SENTINELS") as caught:
        sentinels(FleetSettings(redis_sentinels=value))

    assert "secret" not in str(caught.value)
