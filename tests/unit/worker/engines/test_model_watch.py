"""A worker steps aside while its model is unwell, and comes back."""

from __future__ import annotations

from omnifleet_worker.engines.model_watch import ModelWatch
from support import services


class Service:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def take_out_of_service(self, reason: str) -> None:
        self.reason = reason

    def return_to_service(self) -> None:
        self.reason = None


class TestModelWatch:
    def setup_method(self) -> None:
        self.unwell: str | None = None
        self.service = Service()
        self.watch = ModelWatch(lambda: self.unwell, self.service, interval=0.01)

    def test_it_looks_before_the_first_job(self) -> None:
        self.unwell = "the server is away"

        self.watch.start()
        reason = self.service.reason
        self.watch.stop()

        assert reason == "the server is away"

    def test_the_worker_goes_and_comes_with_the_model(self) -> None:
        self.watch.start()
        try:
            assert self.service.reason is None
            self.unwell = "the server is away"
            services.wait_until(lambda: self.service.reason == "the server is away", what="the worker to step aside")
            self.unwell = None
            services.wait_until(lambda: self.service.reason is None, what="the worker to come back")
        finally:
            self.watch.stop()

    def test_a_model_that_cannot_even_be_asked_is_unwell(self) -> None:
        def fail() -> str | None:
            raise ValueError("no such thing")

        ModelWatch(fail, self.service).look()

        assert self.service.reason == "its model cannot be asked how it is: no such thing"

    def test_another_reason_to_be_out_of_service_stands(self) -> None:
        self.service.reason = "its storage refuses"

        self.unwell = "the server is away"
        self.watch.look()
        self.unwell = None
        self.watch.look()

        assert self.service.reason == "its storage refuses"
