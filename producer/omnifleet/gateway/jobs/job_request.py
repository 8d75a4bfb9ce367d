"""The bodies that jobs come in: JSON, media inline in it, or a form with a JSON part and files."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import fastapi
from omnifleet_shared.errors import ForeignURI, InvalidJob, InvalidMessage
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile

from ...request.request import MEDIA, VOICE, Request, read_request
from ..settings import GatewaySettings

JOB_PART = "job"
"""Name of the form's part that is JSON; the parts named as media are files."""
FILES = {name for names in MEDIA.values() for name in names}
MOST_PARTS = 16
KEY_HEADER = "Idempotency-Key"


@asynccontextmanager
async def read_job_body(request: fastapi.Request, settings: GatewaySettings) -> AsyncGenerator[Request]:
    """Read the job that is asked for. Files of a form are open within the block.

    Raises:
        InvalidMessage: neither JSON nor a form, or none that can be read.
        InvalidJob, ForeignURI: no task, or media that are none.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with read_form(request, settings) as form:
            yield job_request(_form_fields(form))
    elif kind in ("application/json", ""):
        yield job_request(parse_object(await request.body()))
    else:
        remedy = "Send application/json, or multipart/form-data with a part named job and files"
        raise InvalidMessage(f"no job is read from {kind[:80]}", "Content-Type", remedy)


@asynccontextmanager
async def read_form(request: fastapi.Request, settings: GatewaySettings) -> AsyncGenerator[Any]:
    """Read a form. Its files are closed after the block. Raises InvalidMessage for what is none."""
    limits = {"max_files": MOST_PARTS, "max_fields": MOST_PARTS, "max_part_size": settings.gateway_max_json}
    try:
        form = await request.form(**limits)
    except (FormParserError, KeyError, ValueError) as error:
        raise InvalidMessage(f"the form cannot be read: {error}", "body", "Send multipart/form-data") from error
    try:
        yield form
    finally:
        await form.close()


def parse_object(body: bytes | str) -> dict[str, Any]:
    """Parse a JSON object. Raises InvalidMessage for what is none."""
    try:
        fields: object = json.loads(body)
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, a number of thousands of digits
        raise InvalidMessage(f"this is no JSON: {str(error)[:200]}", "body", "Send the job as a JSON object") from error
    if not isinstance(fields, dict):
        raise InvalidMessage(f"this is {type(fields).__name__}, no object", "body", "Send the job as a JSON object")
    return cast(dict[str, Any], fields)


def job_request(fields: Mapping[str, Any]) -> Request:
    """Make a request of a job's fields: those of the Python calls, `task` with its namespace.

    Raises:
        InvalidJob: no task, a path in place of media, or base64 that is none.
        ForeignURI: an address that is not fetched.
    """
    if "idempotency_key" in fields:
        raise InvalidJob("it is no field here", "idempotency_key", f"Send it as the header {KEY_HEADER}")
    request = read_request(fields)
    media = {name: value for name, value in request.arguments.items() if name in FILES and name != JOB_PART}
    opened = {name: _media(value, name) for name, value in media.items()}
    return Request(request.namespace, {**request.arguments, **opened})


def _form_fields(form: Any) -> dict[str, Any]:
    """The fields of a form's job, with its files where the job names media."""
    fields: dict[str, Any] = {}
    files: dict[str, list[Any]] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) and name != JOB_PART:
            if name not in FILES:
                remedy = f"Files are named {', '.join(sorted(FILES))}"
                raise InvalidJob("no job has a file of that name", str(name)[:80], remedy)
            files.setdefault(name, []).append(value.file)
        elif name == JOB_PART and not fields:
            fields = parse_object(value.file.read() if isinstance(value, UploadFile) else value)
        else:
            raise InvalidJob("the form has such a part besides", str(name)[:80], "Put it into the JSON of job")
    for name, some in files.items():
        if name in fields:
            raise InvalidJob("it is in the JSON of job, and a file too", name, "Give one of them")
        fields[name] = some[0] if len(some) == 1 else some
    return fields


def _media(value: Any, field: str) -> Any:
    """Media as the client takes them. Never a path: the gateway's own disk is nobody's business."""
    if isinstance(value, list):
        return [_media(one, f"{field}.{number}") for number, one in enumerate(value)]
    if isinstance(value, Mapping):
        return _inline(cast(Mapping[str, Any], value), field)
    if field == "ref" and isinstance(value, str) and value.startswith(VOICE):
        return value
    if isinstance(value, str) and not value.lower().startswith(("s3://", "file://")):
        remedy = (
            'Send the file in a form, as {"data": "<base64>"}, or upload it first (POST /v1/uploads) and name its uri'
        )
        if "://" in value:
            raise ForeignURI("addresses elsewhere are not fetched", field, remedy)
        raise InvalidJob("a name of a file is no media", field, remedy)
    return value


def _inline(value: Mapping[str, Any], field: str) -> bytes:
    data = value.get("data")
    if set(value) != {"data"} or not isinstance(data, str):
        raise InvalidJob("this is no inline media", field, 'Give {"data": "<base64>"}')
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidJob(f"this is no base64: {error}", f"{field}.data", "Encode the file's bytes in base64") from error
