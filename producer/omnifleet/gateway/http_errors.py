"""Errors as HTTP tells them: a status for each kind, and OpenAI's error object, which its clients read."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from omnifleet_shared.errors import (
    AdapterInvalid,
    BrokerUnavailable,
    CallbackRefused,
    CheckpointInvalid,
    DeadlineExceeded,
    ForeignURI,
    GatewayBusy,
    IdempotencyConflict,
    InvalidJob,
    InvalidMessage,
    InvalidSetting,
    JobCancelled,
    KeyRefused,
    LicenceRefused,
    MediaError,
    MediaTooLarge,
    MediaTooLong,
    ModelServerUnavailable,
    OmnifleetError,
    QueueFull,
    RateExceeded,
    RequestTooSlow,
    ResultTimeout,
    SignatureInvalid,
    StorageRefused,
    StorageUnavailable,
    TransientError,
    UnknownJob,
)
from starlette.exceptions import HTTPException

logger = logging.getLogger(__name__)

STATUS: dict[type[OmnifleetError], int] = {
    AdapterInvalid: 422,
    KeyRefused: 401,
    SignatureInvalid: 401,
    LicenceRefused: 403,
    CallbackRefused: 403,
    UnknownJob: 404,
    RequestTooSlow: 408,
    ResultTimeout: 409,
    JobCancelled: 410,
    MediaTooLarge: 413,
    MediaTooLong: 413,
    MediaError: 422,
    ForeignURI: 422,
    IdempotencyConflict: 422,
    InvalidJob: 400,
    InvalidMessage: 400,
    QueueFull: 429,
    RateExceeded: 429,
    GatewayBusy: 503,
    DeadlineExceeded: 504,
    TransientError: 503,
}
"""Status of each kind of error; the first class that an error is of decides. Any other is the fleet's own, 500."""

OF_THE_FLEET = (
    BrokerUnavailable,
    StorageUnavailable,
    StorageRefused,
    InvalidSetting,
    CheckpointInvalid,
    ModelServerUnavailable,
)
"""Errors whose words are for operators: they name hosts, buckets and files. Callers read what the class means."""

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
"""OpenAI's `type` by status; other errors of the request are `invalid_request_error`, of the fleet `server_error`."""

RETRY_AFTER = 5
"""Seconds, where an error does not tell."""


class BrokenOff(Exception):
    """An answer that has begun cannot be ended as it should: its caller is to see that something is missing."""


def status_of(error: OmnifleetError) -> int:
    """Give the HTTP status of an error."""
    return next((status for cls, status in STATUS.items() if isinstance(error, cls)), 500)


def error_record(error: OmnifleetError) -> dict[str, Any]:
    """Make the error object: OpenAI's `message`, `type`, `param` and `code`, and omnifleet's own parts of it."""
    status, code = status_of(error), type(error).__name__
    if isinstance(error, OF_THE_FLEET):
        meaning = (type(error).__doc__ or code).partition("\n")[0]
        return _record(status, code, meaning, None) | {"remedy": None, "details": {}}
    return _record(status, code, str(error), error.field) | {"remedy": error.remedy, "details": error.details}


def answer(error: OmnifleetError) -> JSONResponse:
    """Answer a request with an error."""
    status = status_of(error)
    headers = {}
    if status in (409, 429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(float(error.details.get("retry_after", RETRY_AFTER)))))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, JobCancelled | DeadlineExceeded):
        # OpenAI's clients send whatever fails with these statuses again: it would be another job, as long as this one.
        headers["X-Should-Retry"] = "false"
    return JSONResponse({"error": error_record(error)}, status, headers)


async def handle_omnifleet_error(_: Request, error: Exception) -> Response:
    """Answer with an error of omnifleet."""
    assert isinstance(error, OmnifleetError)
    if status_of(error) >= 500:
        logger.warning("%s: %s", type(error).__name__, error, extra={"action": "request_failed"})
    return answer(error)


async def handle_invalid_request(_: Request, error: Exception) -> Response:
    """Answer with what FastAPI found wrong with a request, by its first complaint."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return answer(InvalidJob(str(first["msg"])[:500], field[:200]))


async def handle_http_error(_: Request, error: Exception) -> Response:
    """Answer with an error of HTTP itself, such as a page that is not there."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, OmnifleetError):  # raised while FastAPI read the body
        return answer(error.__cause__)
    if error.status_code == HTTPStatus.NO_CONTENT:
        return Response(status_code=error.status_code)
    record = _record(error.status_code, HTTPStatus(error.status_code).phrase.replace(" ", ""), error.detail, None)
    return JSONResponse({"error": record}, error.status_code, error.headers)


async def handle_fault(_: Request, error: Exception) -> Response:
    """Answer with an unforeseen error, of which callers are told nothing; Starlette logs it."""
    del error
    return JSONResponse({"error": _record(500, "InternalError", "The gateway failed. Try again later.", None)}, 500)


def _record(status: int, code: str, message: str, field: str | None) -> dict[str, Any]:
    kind = TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": field, "code": code}
