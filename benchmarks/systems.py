"""The two systems that are compared, each as what sends a job and waits for its result."""

from __future__ import annotations

from typing import Any, Protocol

from bare_worker import TASK
from omnifleet import Client


class System(Protocol):
    """Used from several threads; a job is waited for in the thread that sent it."""

    name: str

    def submit(self) -> Any:
        """Send one job; gives what `wait` takes."""

    def wait(self, job: Any, seconds: float) -> None:
        """Return when its result is there, and raise when it is not there in time."""


class Fleet:
    """The whole way: client, Redis, worker, engine, result record."""

    name = "omnifleet"

    def __init__(self, client: Client) -> None:
        self._client = client

    def submit(self) -> Any:
        """See `System`."""
        return self._client.understand(question="Is anyone there?")

    def wait(self, job: Any, seconds: float) -> None:
        """See `System`."""
        assert job.result(seconds).text == "ok"


class BareCelery:
    """A task without arguments, and its AsyncResult."""

    name = "bare Celery"

    def __init__(self, app: Any) -> None:
        self._app = app

    def submit(self) -> Any:
        """See `System`."""
        return self._app.send_task(TASK)

    def wait(self, job: Any, seconds: float) -> None:
        """See `System`."""
        assert job.get(timeout=seconds) == "ok"
