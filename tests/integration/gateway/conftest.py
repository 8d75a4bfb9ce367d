"""A fleet with scripted workers and a gateway before it, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import scripted_fleet
from support.fork_server import ForkServer
from support.gateway.process import Gateway, gateway, new_key
from support.scripted_fleet import ScriptedFleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Iterator[ScriptedFleet]:
    with scripted_fleet.scripted_fleet(tmp_path_factory.mktemp("gateway"), fork_server) as started:
        started.start()
        yield started


@pytest.fixture(scope="module")
def omnigate(fleet: ScriptedFleet) -> Iterator[Gateway]:
    """A gateway of that fleet, asked with a key of the tenant acme."""
    key = new_key(fleet.settings.redis_url)
    with gateway(fleet.environment, fleet.folder / "gateway.log", key=key) as running:
        yield running
    # Nothing that a test did ended in an error of its own.
    assert running.faults() == []
