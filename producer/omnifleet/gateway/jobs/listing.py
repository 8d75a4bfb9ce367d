"""`GET /v1/jobs`: the jobs of the caller's tenant."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from ..backend import TheBackend, TheCaller
from ..http_errors import error_record
from .job_list import ListedJob
from .views import progress_view

MOST_AT_ONCE = 100

router = APIRouter(tags=["jobs"])


@router.get("/v1/jobs")
async def list_jobs(
    backend: TheBackend,
    caller: TheCaller,
    limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE, description="Jobs to list at most.")] = 20,
    after: Annotated[
        int | None, Query(ge=0, lt=2**53, description="Where an earlier page ended: its `next` has it.")
    ] = None,
) -> dict[str, Any]:
    """List the jobs that your keys sent, newest first, as long as their records are kept. `next` is the path of what
    comes after them."""
    page = await backend.job_list.page(caller.tenant, limit, after)
    following = None if page.next is None else f"/v1/jobs?limit={limit}&after={page.next}"
    return {"object": "list", "data": [_view(job) for job in page.jobs], "next": following}


def _view(job: ListedJob) -> dict[str, Any]:
    error = job.state.error if job.state.status.is_final else None
    return {
        "id": job.job_id,
        "object": "job",
        "task": job.task,
        "created_at": datetime.fromtimestamp(job.sent / 1e6, UTC).isoformat(),
        "status": job.state.status.value,
        "progress": progress_view(job.progress),
        "error": error and error_record(error),
        "path": f"/v1/jobs/{job.job_id}",
    }
