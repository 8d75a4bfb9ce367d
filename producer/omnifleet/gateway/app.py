"""The gateway's application: routes, error handlers, and what lies around them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, Response
from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.redis_client import connect_async_redis
from omnifleet_shared.storage import open_storage
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..async_client import AsyncClient
from . import http_errors
from .access.admission import Admission
from .backend import Backend, TheBackend
from .jobs import listing
from .jobs import routes as jobs
from .jobs.attendance import HungUp
from .jobs.job_feed import JobFeed
from .jobs.job_list import JobList
from .jobs.openapi import ERRORS
from .middleware.gate import Gate
from .middleware.metrics import GatewayMetrics
from .middleware.telemetry import ABANDONED, PROBES, Telemetry
from .openai import catalogue, speech, transcriptions
from .page.routes import add_pages
from .settings import GatewaySettings

logger = logging.getLogger(__name__)


def create_app(settings: GatewaySettings, metrics: GatewayMetrics, *, with_keys: bool) -> FastAPI:
    """Make the application. What it holds is opened when it starts, and closed when it ends.

    Args:
        settings: of the fleet and the gateway.
        metrics: counts its requests.
        with_keys: whether API keys are asked for.
    """
    app = FastAPI(
        title="omnifleet",
        version=version("omnifleet"),
        description="Understand, generate and edit audio with a fleet of workers.",
        lifespan=_lifespan(settings, metrics),
        responses=ERRORS,
        # A redirection would lead wherever the caller's Host header says.
        redirect_slashes=False,
        telemetry={
            "exclude": lambda scope: scope.get("path") in PROBES,
            # Metrics and logs are the gateway's own.
            "metrics": False,
            "logs": False,
            "operation_spans": False,
        },
        # Their scripts would be fetched from another host: `page` has one of its own.
        docs_url=None,
        redoc_url=None,
    )
    for router in (listing.router, jobs.router, speech.router, transcriptions.router, catalogue.router):
        app.include_router(router)
    if settings.gateway_page:
        add_pages(app)
    app.add_api_route("/livez", livez, response_class=PlainTextResponse, tags=["health"])
    app.add_api_route("/readyz", readyz, response_class=PlainTextResponse, tags=["health"])
    app.add_exception_handler(OmnifleetError, http_errors.handle_omnifleet_error)
    app.add_exception_handler(RequestValidationError, http_errors.handle_invalid_request)
    app.add_exception_handler(HTTPException, http_errors.handle_http_error)
    app.add_exception_handler(HungUp, _handle_hung_up)
    app.add_exception_handler(ClientDisconnect, _handle_hung_up)
    app.add_exception_handler(Exception, http_errors.handle_fault)
    app.add_middleware(Gate, settings=settings, metrics=metrics, with_keys=with_keys)
    app.add_middleware(Telemetry, metrics=metrics)
    return app


async def livez() -> str:
    """Say that the event loop turns."""
    return "ok\n"


async def readyz(backend: TheBackend) -> Response:
    """Say whether requests are welcome: 503 where Redis does not answer, or the process is about to end."""
    if backend.draining.is_set():
        return PlainTextResponse("the gateway is stopping\n", 503)
    try:
        await backend.admission.ping()
    except OmnifleetError:
        return PlainTextResponse("Redis does not answer\n", 503)
    return PlainTextResponse("ok\n")


async def _handle_hung_up(_: Request, __: Exception) -> Response:
    """Answer nobody: the status is for the log."""
    return Response(status_code=ABANDONED)


def _lifespan(
    settings: GatewaySettings, metrics: GatewayMetrics
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        storage = open_storage(settings)
        redis = connect_async_redis(settings)
        async with AsyncClient(settings, storage=storage) as omni:
            admission = Admission(redis, settings.result_lifetime)
            feed = JobFeed(redis, settings.result_lifetime)
            job_list = JobList(redis, settings.result_lifetime)
            app.state.backend = Backend(settings, omni, storage, admission, feed, job_list, metrics)
            logger.info("the gateway is ready.", extra={"action": "gateway_ready"})
            try:
                yield
            finally:
                await feed.close()
                await redis.aclose()

    return lifespan
