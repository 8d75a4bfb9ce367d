"""How the requests of a batch become jobs of a fleet."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from omnifleet_shared.errors import InvalidJob, OmnifleetError
from omnifleet_shared.observability import tracing as traces
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage

from ..request.maker import JobMaker
from ..request.request import Request
from ..transport.celery import JobTransport

PRIORITY = "batch"
"""Of jobs that name none."""


class JobSender:
    """Sends the jobs of a batch, on whichever thread. What it is made of is the caller's to close.

    Args:
        settings: of the fleet.
        storage: where media and results are.
        transport: carries the jobs.
    """

    def __init__(self, settings: FleetSettings, storage: Storage, transport: JobTransport) -> None:
        self.settings = settings
        self.storage = storage
        self.transport = transport
        self._maker = JobMaker(settings, storage, transport.pending_deletion, transport.workers)

    def send(self, request: Request, job_id: str) -> str:
        """Upload the request's media and send it under that id; what was sent before is not sent again.

        Returns:
            The job's id: another one where a job with the request's own `idempotency_key` stands for it.

        Raises:
            Everything that the client's methods raise.
        """
        with _typed_errors(), traces.span(request.title, "client"):
            return self.transport.submit(*self._maker.make(request.with_default(priority=PRIORITY), job_id=job_id))

    def validate(self, request: Request) -> None:
        """Check the request as far as is possible without sending it or reading its media. Raises as `send`."""
        with _typed_errors():
            self._maker.check(request.with_default(priority=PRIORITY))


@contextmanager
def _typed_errors() -> Generator[None]:
    """Make InvalidJob of whatever an item's values do to the call: one bad item must not end the others."""
    try:
        yield
    except OmnifleetError:
        raise
    except (TypeError, ValueError, AttributeError, OSError) as error:  # OSError: a file that goes away while it is read
        details: dict[str, Any] = {"type": type(error).__name__}
        raise InvalidJob(f"the call cannot be made: {error}", "jobs", "Check its arguments", details) from error
