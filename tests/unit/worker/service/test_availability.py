"""A worker that steps aside: what it takes, what it shows, and when it ends."""

from __future__ import annotations

import threading
from typing import cast

import pytest
from omnifleet_shared.broker.leases import Leases
from omnifleet_worker.lease_renewer import LeaseRenewer
from omnifleet_worker.observability.health import Health
from omnifleet_worker.service import availability as availability_module
from omnifleet_worker.service.availability import Availability


class FakeJobs:
    """Ends when it is told to."""

    def __init__(self) -> None:
        self.handing_back: str | None = None
        self.may_end = threading.Event()

    def hand_back(self, reason: str) -> None:
        self.handing_back = reason

    def take_again(self) -> None:
        self.handing_back = None

    def await_end(self, seconds: float) -> None:
        assert self.may_end.wait(300)


class Stage:
    """A worker without jobs, polling, that notes its end instead of ending."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.jobs = FakeJobs()
        self.exit_codes: list[int] = []
        self.ended = threading.Event()
        leases = cast(Leases, None)
        self.renewer = LeaseRenewer(
            leases,
            places={"sounds": 1},
            engine_stalled=lambda: 0.0,
            engine_timeout=1,
            poll_timeout=60,
            on_lost=lambda tag: None,
        )
        self.health = Health(self.renewer, lambda: 0.0, 1, 60)
        self.health.loaded()
        self.renewer.note_poll()
        self.availability = Availability(self.health, self.renewer, lambda: self.jobs)
        monkeypatch.setattr(availability_module, "end_process", self._end)

    def _end(self, code: int) -> None:
        self.exit_codes.append(code)
        self.ended.set()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_a_worker_out_of_service_takes_nothing_and_says_why_until_it_is_back(stage: Stage) -> None:
    assert stage.health.why_not_ready() is None

    stage.availability.take_out_of_service("its disk is full")

    assert not stage.renewer.takes
    assert stage.jobs.handing_back == "its disk is full"
    assert stage.health.why_not_ready() == "out of service: its disk is full"
    assert stage.health.why_not_alive() is None
    assert stage.health.state() == "unwell"

    stage.availability.return_to_service()

    assert stage.renewer.takes
    assert stage.jobs.handing_back is None
    assert stage.health.why_not_ready() is None


def test_it_ends_once_its_jobs_have(stage: Stage) -> None:
    stage.availability.take_out_of_service("its device failed", exit_code=72)
    assert stage.exit_codes == []

    stage.jobs.may_end.set()

    assert stage.ended.wait(300)
    assert stage.exit_codes == [72]


def test_the_first_reason_stands_and_an_end_is_final(stage: Stage) -> None:
    stage.availability.take_out_of_service("its disk is full")
    stage.availability.take_out_of_service("its credentials are wrong")
    assert stage.availability.reason == "its disk is full"

    stage.availability.take_out_of_service("its device failed", exit_code=72)
    stage.availability.return_to_service()
    stage.availability.take_out_of_service("its device failed again", exit_code=73)

    assert stage.availability.reason == "its device failed"
    stage.jobs.may_end.set()
    assert stage.ended.wait(300)
    assert stage.exit_codes == [72]


def test_a_consumer_that_is_being_stopped_takes_nothing_even_then(stage: Stage) -> None:
    stage.availability.take_out_of_service("its disk is full")
    stage.renewer.stop_polling()

    stage.availability.return_to_service()

    assert not stage.renewer.takes
