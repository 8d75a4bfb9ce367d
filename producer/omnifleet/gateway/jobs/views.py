"""Jobs and results as the gateway shows them."""

from __future__ import annotations

import asyncio
from typing import Any

from omnifleet_shared.schema import results as records
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import Artifact, Progress, VideoArtifact
from omnifleet_shared.storage import Storage

from ...results.results import Audio, open_result
from ...results.stored_file import StoredFile
from ..backend import Backend
from ..http_errors import error_record
from .job_feed import Look


async def job_view(backend: Backend, job_id: str, look: Look) -> dict[str, Any]:
    """Make the view of a job: its status and progress, its route where there was a choice, its result or its error."""
    result, route = look.state.result, await backend.omni.job(job_id).route()
    shown: dict[str, Any] | None = None
    if result is not None:
        # On a thread: signing a link may have to fetch credentials.
        shown = await asyncio.to_thread(_result_view, result, backend.storage, backend.settings.url_lifetime)
    error = look.state.error if look.state.status.is_final else None
    return {
        "id": job_id,
        "object": "job",
        "status": look.state.status.value,
        "progress": progress_view(look.progress),
        **({} if route is None else {"route": route.model_dump(mode="json")}),
        "result": shown,
        "error": error and error_record(error),
    }


def progress_view(progress: Progress) -> dict[str, Any]:
    """Make the view of a job's progress."""
    return {"step": progress.step, "steps": progress.steps, "eta": progress.eta}


async def part_view(backend: Backend, job_id: str, part: StreamedPart) -> dict[str, Any]:
    """Make the view of a part: its text, or where its sound is heard."""
    shown: dict[str, Any] = {"number": part.number, "kind": part.kind}
    if part.audio is None:
        return shown | {"text": part.text}
    audio = Audio(part.audio, backend.storage, backend.settings.url_lifetime)
    path = f"/v1/jobs/{job_id}/parts/{part.number}"
    return shown | {"audio": await asyncio.to_thread(_file_view, path, audio, part.audio)}


def _result_view(record: records.JobResult, storage: Storage, url_lifetime: int) -> dict[str, Any]:
    """The record, with files by where they are heard."""
    result = open_result(record, storage, url_lifetime)
    fields = record.model_dump(mode="json", exclude={"artifact", "video"})
    files = {"audio": (result.audio, record.artifact), "video": (result.video, record.video)}
    for name, (stored, artifact) in files.items():
        if stored is not None and artifact is not None:
            fields[name] = _file_view(f"/v1/jobs/{record.job_id}/{name}", stored, artifact)
    return fields


def _file_view(path: str, stored: StoredFile, record: Artifact | VideoArtifact) -> dict[str, Any]:
    """A file by where it is heard: here, or by a link that needs no key."""
    return {"path": path, "link": _link(stored), **record.model_dump(mode="json", exclude={"uri", "url"})}


def _link(stored: StoredFile) -> str | None:
    """None where files are in a folder: nobody reaches that over HTTP but through the gateway."""
    return url if (url := stored.url).startswith(("http://", "https://")) else None
