"""A backend on omnifleet: `uvicorn app:app`, in this folder, with the fleet's OMNIFLEET_* in the environment.

    curl -F audio=@call.mp3 localhost:8000/transcripts        {"job_id": "5f0c…", "status": "queued"}
    curl localhost:8000/jobs/5f0c…                            {"status": "running", "progress": {"step": 37, …}}
    curl 'localhost:8000/jobs/5f0c…/result?wait=20'           {"text": "hello", …}, or 202 if it takes longer

With OMNIFLEET_CALLBACK_SECRET and PUBLIC_URL (where the workers reach this service) it need not ask: it is called back.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response, UploadFile
from fastapi.responses import JSONResponse
from omnifleet import (
    AsyncClient,
    AsyncJobHandle,
    BrokerUnavailable,
    DeadlineExceeded,
    ForeignURI,
    InvalidJob,
    InvalidMessage,
    JobCancelled,
    JobResult,
    MediaError,
    MediaNotFound,
    MediaTooLarge,
    OmnifleetError,
    QueueFull,
    ResultTimeout,
    SignatureInvalid,
    StorageUnavailable,
    UnknownJob,
    verify_callback,
)
from pydantic import BaseModel

LONGEST_WAIT = 30.0
"""Seconds that a request may wait for a result: below what proxies put up with."""

HTTP_STATUS: dict[type[OmnifleetError], int] = {
    SignatureInvalid: 401,
    UnknownJob: 404,
    JobCancelled: 410,
    MediaTooLarge: 413,
    MediaNotFound: 422,
    MediaError: 422,
    ForeignURI: 422,
    InvalidJob: 422,
    InvalidMessage: 400,
    QueueFull: 429,
    BrokerUnavailable: 503,
    StorageUnavailable: 503,
    DeadlineExceeded: 504,
}
"""The first class that an error is of decides; any other is the fleet's own failure, 502."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for the life of the process."""
    async with AsyncClient() as omni:
        app.state.omni = omni
        app.state.called_back = {}
        yield


app = FastAPI(title="omnifleet example", lifespan=lifespan)


def client(request: Request) -> AsyncClient:
    omni: AsyncClient = request.app.state.omni
    return omni


def callback_url() -> str | None:
    """Where the workers tell this service of outcomes, if it can be reached."""
    public = os.environ.get("PUBLIC_URL")
    return f"{public}/callbacks" if public else None


Omni = Annotated[AsyncClient, Depends(client)]
CallbackUrl = Annotated[str | None, Depends(callback_url)]


class Sound(BaseModel):
    """What is to be heard."""

    text: str
    seconds: float = 10.0
    seed: int | None = None


@app.post("/transcripts", status_code=202)
async def transcribe(audio: UploadFile, omni: Omni, callback: CallbackUrl) -> dict[str, Any]:
    """Send a recording to be transcribed."""
    # The client reads it on a thread of its own.
    return await _accepted(await omni.understand("transcribe", audio.file, callback=callback))


@app.post("/sounds", status_code=202)
async def make_sound(sound: Sound, omni: Omni, callback: CallbackUrl) -> dict[str, Any]:
    """Have a sound made. The same wish twice is one job."""
    job = await omni.generate("t2a", **sound.model_dump(), idempotency_key="auto", callback=callback)
    return await _accepted(job)


@app.get("/jobs/{job_id}")
async def look(job_id: str, omni: Omni) -> dict[str, Any]:
    """Where the job is, and how far."""
    job = omni.job(job_id)
    status, progress, callback = await job.status(), await job.progress(), await job.callback()
    told = callback.model_dump(mode="json") if callback else None
    return {"job_id": job_id, "status": status, "progress": progress.model_dump(), "callback": told}


@app.get("/jobs/{job_id}/result", response_model=None)
async def result(
    job_id: str, omni: Omni, wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0
) -> dict[str, Any] | JSONResponse:
    """The result; 202 where it is not there within `wait` seconds."""
    try:
        return _shown(await omni.job(job_id).result(wait))
    except ResultTimeout as error:
        return JSONResponse({"job_id": job_id, "status": error.details["status"]}, status_code=202)


@app.delete("/jobs/{job_id}", status_code=202)
async def cancel(job_id: str, omni: Omni) -> dict[str, Any]:
    """Ask for the job to be stopped."""
    job = omni.job(job_id)
    await job.cancel()
    return {"job_id": job_id, "status": await job.status()}


@app.post("/callbacks", status_code=204)
async def called_back(request: Request) -> Response:
    """What the workers post: verified, and noted once however often it comes."""
    outcome = verify_callback(await request.body(), request.headers, os.environ["OMNIFLEET_CALLBACK_SECRET"])
    request.app.state.called_back[outcome.job_id] = outcome.model_dump(mode="json")
    return Response(status_code=204)


@app.get("/callbacks/{job_id}", response_model=None)
async def told(job_id: str, request: Request) -> dict[str, Any] | JSONResponse:
    """What this process was told of the job."""
    return request.app.state.called_back.get(job_id) or JSONResponse(None, status_code=404)


@app.exception_handler(OmnifleetError)
async def typed_error(_: Request, error: OmnifleetError) -> JSONResponse:
    """Every error says which field is wrong and what to do; the class decides the status."""
    status = next((status for cls, status in HTTP_STATUS.items() if isinstance(error, cls)), 502)
    about = {"problem": error.problem, "field": error.field, "remedy": error.remedy, "details": error.details}
    headers = {"Retry-After": str(error.details.get("retry_after", 30))} if status in (429, 503) else None
    return JSONResponse({"error": {"type": type(error).__name__, **about}}, status, headers=headers)


async def _accepted(job: AsyncJobHandle[Any]) -> dict[str, Any]:
    return {"job_id": job.id, "status": await job.status()}


def _shown(result: JobResult) -> dict[str, Any]:
    audio = result.audio
    made = {"url": audio.url, "seconds": audio.seconds, "format": audio.format} if audio else None
    about = {"seed": result.seed, "licence": result.model.licence}
    return {"job_id": result.job_id, "text": result.text, "audio": made, **about}
