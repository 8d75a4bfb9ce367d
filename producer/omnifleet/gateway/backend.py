"""What every request of a gateway process works with, and who makes the request: for FastAPI to inject."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer
from omnifleet_shared.storage import Storage

from ..async_client import AsyncClient
from .access.admission import Admission, Caller
from .jobs.job_feed import JobFeed
from .jobs.job_list import JobList
from .middleware.metrics import GatewayMetrics
from .settings import GatewaySettings


@dataclass(frozen=True)
class Backend:
    """What a gateway process holds: nothing of any job, so that every replica can answer for every job."""

    settings: GatewaySettings
    omni: AsyncClient
    storage: Storage
    admission: Admission
    feed: JobFeed
    job_list: JobList
    metrics: GatewayMetrics
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the process is to end."""

    def drain(self) -> None:
        """End open streams, whose readers go on with another replica, and refuse to be ready."""
        self.draining.set()
        self.feed.stop()


def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


def the_caller(request: Request, _: Annotated[object, Security(HTTPBearer(auto_error=False))]) -> Caller:
    """Return who was let in by the gate; the scheme is named for the sake of openapi.json."""
    caller: Caller = request.state.caller
    return caller


TheBackend = Annotated[Backend, Depends(_backend)]
TheCaller = Annotated[Caller, Depends(the_caller)]
