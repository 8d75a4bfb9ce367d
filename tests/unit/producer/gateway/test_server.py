"""Where the gateway listens, and to whom."""

from __future__ import annotations

import socket

import pytest
from omnifleet.gateway import server
from omnifleet.gateway.settings import GatewaySettings
from omnifleet_shared.errors import InvalidSetting
from support.processes import free_port


def test_answers_do_not_wait_for_their_headers_to_be_acknowledged() -> None:
    port = free_port()

    with server._listening("127.0.0.1", port) as listener, socket.create_connection(("127.0.0.1", port)):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(InvalidSetting) as caught:
        server.run_gateway(GatewaySettings(), "127.0.0.1", other.getsockname()[1], with_keys=True)

    assert caught.value.field == "--port"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "gateway.example.com"])
def test_without_keys_only_this_machine_is_let_in(host: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        server.run_gateway(GatewaySettings(), host, free_port(), with_keys=False)

    assert caught.value.field == "--without-keys"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_addresses_of_this_machine_are_known(host: str) -> None:
    assert server._is_loopback(host)
