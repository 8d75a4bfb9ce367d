"""Where callbacks may go: the list to the letter, and never to a private address by the way of a name."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet import CallbackRefused, Client, InvalidJob, InvalidSetting
from omnifleet.testing import FakeClient
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.webhooks.allow_list import CallbackHosts

LIST = "hooks.example.com, api.example.com:8443, http://plain.example.com, http://backend.svc:8000=10.0.0.0/8,127.0.0.1"


def lead_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name lead to these."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/job?token=1",
        "https://HOOKS.example.com:443",
        "https://api.example.com:8443/x",
        "http://plain.example.com/x",
        "http://plain.example.com:80/x",
        "http://backend.svc:8000/x",
        "https://127.0.0.1/x",
    ],
)
def test_what_is_on_the_list_is_allowed(url: str) -> None:
    assert CallbackHosts(LIST).find(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/x",
        "https://plain.example.com/x",
        "https://hooks.example.com:8443/x",
        "https://api.example.com/x",
        "https://example.com/x",
        "https://hooks.example.com.evil.org/x",
        "https://evil.org/hooks.example.com",
        "https://evil.org#@hooks.example.com/",
        "https://hooks.example.com@evil.org/",
        "https://evil.org:443@hooks.example.com/",
        "https://evil.org\\@hooks.example.com/",
        "http://127.0.0.1/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://0x7f000001/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://hooks.example.com:99999/",
        "https://[::1",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "hooks.example.com",
        "",
    ],
)
def test_anything_else_is_refused_by_name(url: str) -> None:
    with pytest.raises(CallbackRefused) as caught:
        CallbackHosts(LIST).find(url)

    assert caught.value.field == "callback"
    assert caught.value.remedy


def test_without_a_list_nothing_is_allowed() -> None:
    assert not CallbackHosts(None)
    with pytest.raises(CallbackRefused, match="not allowed"):
        CallbackHosts(" ").find("https://hooks.example.com/")


def test_neither_path_nor_query_is_repeated() -> None:
    with pytest.raises(CallbackRefused) as caught:
        CallbackHosts(LIST).find("https://evil.org/path?token=hunter2")

    assert "hunter2" not in str(caught.value)
    assert "evil.org" in str(caught.value)


@pytest.mark.parametrize("entry", ["https://", "a b", "host:port", "host/path", "ftp://host", "host=10.0.0", "u@host"])
def test_an_entry_that_is_none_is_an_invalid_setting(entry: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        Client(FleetSettings(callback_hosts=f"good.example.com,{entry}", storage="file:///tmp"))

    assert caught.value.field == "OMNIFLEET_CALLBACK_HOSTS"


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fd00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::"),
    ],
)
def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    lead_to(monkeypatch, address)

    with pytest.raises(CallbackRefused, match="leads to no address"):
        CallbackHosts(LIST).find("https://hooks.example.com/").addresses()


def test_only_the_public_ones_of_several_addresses_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    lead_to(monkeypatch, "10.0.0.1", "93.184.216.34", "93.184.216.34")

    assert CallbackHosts(LIST).find("https://hooks.example.com/").addresses() == ["93.184.216.34"]


def test_a_network_that_is_given_with_the_name_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    host = CallbackHosts(LIST).find("http://backend.svc:8000/")
    lead_to(monkeypatch, "10.9.8.7")
    assert host.addresses() == ["10.9.8.7"]

    lead_to(monkeypatch, "192.168.1.1")
    with pytest.raises(CallbackRefused):
        host.addresses()


def test_an_address_in_the_list_itself_is_meant() -> None:
    assert CallbackHosts(LIST).find("https://127.0.0.1/").addresses() == ["127.0.0.1"]


@given(url=st.one_of(st.text(), st.text().map(lambda text: f"https://{text}hooks.example.com/")))
def test_any_text_is_allowed_or_refused(url: str) -> None:
    try:
        host = CallbackHosts(LIST).find(url)
    except CallbackRefused:
        return
    assert host.name in LIST


class TestAtTheClient:
    @pytest.mark.parametrize("callback", ["https://evil.org/x", "http://hooks.example.com/x"])
    def test_a_host_that_it_knows_not_to_be_allowed_is_refused_before_anything_is_sent(self, callback: str) -> None:
        omni = FakeClient(settings=FleetSettings(callback_hosts=LIST))

        with pytest.raises(CallbackRefused):
            omni.understand("transcribe", b"sound", callback=callback)

        assert omni.jobs == []
        assert omni.fleet.storage.objects == {}

    @pytest.mark.parametrize("callback", ["", "ftp://host/x", "https://a b/", "https://host/\r\nX: 1", "x" * 3000, 7])
    def test_what_is_no_url_is_refused_everywhere(self, callback: Any) -> None:
        with pytest.raises(InvalidJob) as caught:
            FakeClient().generate("t2a", "rain", callback=callback)

        assert caught.value.field == "callback"

    def test_one_that_is_allowed_goes_with_the_job_of_the_second_schema_version(self) -> None:
        omni = FakeClient(settings=FleetSettings(callback_hosts=LIST))

        omni.generate("t2a", "rain", callback="https://hooks.example.com/x")
        omni.generate("t2a", "rain")

        assert [(job.schema_version, job.callback) for job in omni.jobs] == [
            (2, "https://hooks.example.com/x"),
            (1, None),
        ]
        assert "callback" not in omni.jobs[1].model_dump(mode="json")

    def test_the_same_content_is_the_same_job_whoever_is_called(self) -> None:
        omni = FakeClient()

        first = omni.generate("t2a", "rain", idempotency_key="auto")
        second = omni.generate("t2a", "rain", idempotency_key="auto", callback="https://hooks.example.com/x")

        assert first.id == second.id
