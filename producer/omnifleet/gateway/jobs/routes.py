"""`/v1/jobs` and `/v1/uploads`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from omnifleet_shared.errors import InvalidMessage, MediaNotFound, OmnifleetError, ResultTimeout, UnknownJob
from omnifleet_shared.schema.base import JobId
from omnifleet_shared.schema.job_state import JobState
from omnifleet_shared.schema.results import JobStatus, Progress
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from ...async_handle import AsyncJobHandle
from ...request.uploads import Uploads
from ..backend import Backend, TheBackend, TheCaller, the_caller
from ..middleware.logs import note
from .files import result_name, send_file
from .job_events import OUTCOME, follow
from .job_feed import Look
from .job_request import KEY_HEADER, read_form, read_job_body
from .openapi import EVENTS, JOB_BODY, UPLOAD_BODY
from .submission import settle, submit
from .views import job_view

LONGEST_WAIT = 300.0
"""Seconds that a request may wait for an outcome."""
MOST_PARTS = 10**9
JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)

router = APIRouter(tags=["jobs"])
IdempotencyKey = Annotated[
    str | None, Header(alias=KEY_HEADER, description="The same key again is answered with the same job.")
]


async def known_job(job_id: str, backend: TheBackend, caller: TheCaller) -> AsyncJobHandle[Any]:
    """Return the handle of a job that the caller may see. Raises UnknownJob."""
    try:
        JOB_ID.validate_python(job_id)
    except ValidationError as error:
        raise UnknownJob(f"{job_id[:80]!r} is no id of a job", "job_id") from error
    note(job_id=job_id)
    await backend.admission.check_owner(caller, job_id)
    return backend.omni.job(job_id)


KnownJob = Annotated[AsyncJobHandle[Any], Depends(known_job)]


@router.post("/v1/jobs", status_code=202, openapi_extra=JOB_BODY)
async def create_job(
    request: Request,
    response: Response,
    backend: TheBackend,
    caller: TheCaller,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the outcome.")] = 0,
    idempotency_key: IdempotencyKey = None,
) -> dict[str, Any]:
    """Send a job. With `wait`, a caller who hangs up cancels it, unless it has an idempotency key to come back with."""
    async with read_job_body(request, backend.settings) as asked:
        job = await submit(backend, caller, asked, idempotency_key)
    if wait:
        await settle(backend, request, job, wait, cancel=idempotency_key is None)
    look = await _look(job)
    response.status_code = 200 if look.state.status.is_final else 202
    return await job_view(backend, job.id, look)


@router.get("/v1/jobs/{job_id}")
async def read_job(
    job: KnownJob,
    request: Request,
    backend: TheBackend,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="Seconds to wait for the outcome.")] = 0,
) -> dict[str, Any]:
    """Look at a job: where it is, how far, its result or its error."""
    if wait:
        await settle(backend, request, job, wait, cancel=False)
    return await job_view(backend, job.id, await _look(job))


@router.delete("/v1/jobs/{job_id}", status_code=202)
async def cancel_job(job: KnownJob, backend: TheBackend) -> dict[str, Any]:
    """Cancel a job: before it starts, or at its next step. Without effect on one that is done."""
    await job.cancel()
    return await job_view(backend, job.id, await _look(job))


async def new_events(job: KnownJob, last_event_id: Annotated[str | None, Header()] = None) -> AsyncJobHandle[Any]:
    """Refuse a stream before it begins: of an unknown job, or one whose outcome was read already."""
    await job.status()
    if last_event_id == OUTCOME:
        raise HTTPException(204)  # browsers do not come back then
    return job


@router.get("/v1/jobs/{job_id}/events", response_class=EventSourceResponse, responses=EVENTS)
async def follow_job(
    job: Annotated[AsyncJobHandle[Any], Depends(new_events)],
    backend: TheBackend,
    last_event_id: Annotated[str | None, Header()] = None,
) -> AsyncGenerator[ServerSentEvent]:
    """Follow a job: `progress` at each change, `part` for each part of one that was sent with `stream`, then `outcome`,
    the job as it is read. A stream that broke off goes on with `Last-Event-ID`, on any replica."""
    backend.metrics.open_streams.inc()
    try:
        async with aclosing(follow(backend, job.id, last_event_id)) as events:
            async for event in events:
                yield event
    finally:
        backend.metrics.open_streams.dec()


@router.get("/v1/jobs/{job_id}/parts/{number}", response_class=Response)
@router.head("/v1/jobs/{job_id}/parts/{number}", response_class=Response, include_in_schema=False)
async def read_part(
    job: KnownJob, number: Annotated[int, Path(ge=1, le=MOST_PARTS)], request: Request, backend: TheBackend
) -> Response:
    """Download the sound of a part, or the piece of it that `Range` names. 409 before it is there."""
    is_final = (await job.status()).is_final  # before the part is read: none comes behind the outcome
    part = await backend.feed.part(job.id, number)
    if part is not None and part.audio is not None:
        return await send_file(request, backend.storage, part.audio, f"{job.id[:8]}-{number}")
    if part is None and not is_final:
        raise ResultTimeout(f"part {number} is not there yet", "number", "Follow the job's events")
    raise MediaNotFound(f"the job has no part {number} of sound", "number", "GET the job: its result has what it made")


@router.get("/v1/jobs/{job_id}/{kind}", response_class=Response)
@router.head("/v1/jobs/{job_id}/{kind}", response_class=Response, include_in_schema=False)
async def read_file(job: KnownJob, kind: Literal["audio", "video"], request: Request, backend: TheBackend) -> Response:
    """Download what a job made, or the part of it that `Range` names. 409 before it is there."""
    result = await job.result(0)
    stored = result.record.artifact if kind == "audio" else result.record.video
    if stored is None:
        raise MediaNotFound(f"the job made no {kind}", kind, "GET the job: its result has what it made")
    return await send_file(request, backend.storage, stored, result_name(result.record))


@router.post("/v1/uploads", status_code=201, openapi_extra=UPLOAD_BODY, dependencies=[Depends(the_caller)])
async def upload(request: Request, backend: TheBackend) -> dict[str, Any]:
    """Store a recording or video, to be named by its `uri` in any number of jobs."""
    async with read_form(request, backend.settings) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidMessage("there is no file", "file", "Send multipart/form-data with a part named file")
        return await asyncio.to_thread(_store, backend, file)


def _store(backend: Backend, file: UploadFile) -> dict[str, Any]:
    with Uploads(backend.storage, backend.settings.max_input_bytes) as uploads:
        media = uploads.describe(file.file, "file")
        uploads.send()
    return {"object": "upload", **media.model_dump()}


async def _look(job: AsyncJobHandle[Any]) -> Look:
    status = await job.status()
    if not status.is_final:
        return Look(JobState(status=status), await job.progress())
    try:
        result = await job.result(0)
    except ResultTimeout:  # replayed meanwhile
        return Look(JobState(status=JobStatus.QUEUED), Progress())
    except OmnifleetError as error:
        return Look(JobState(status=status, error=error), await job.progress())
    return Look(JobState(status=status, result=result.record), await job.progress())
