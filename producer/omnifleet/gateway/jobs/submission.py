"""Sends jobs for callers: within their quota, under their own idempotency keys, seen by their tenant alone."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from fastapi import Request as HttpRequest
from omnifleet_shared.errors import InvalidJob, OmnifleetError, ResultTimeout

from ...async_handle import AsyncJobHandle
from ...request.build import check_arguments, task_fields
from ...request.idempotency import AUTO
from ...request.request import Request
from ..access.admission import Caller
from ..backend import Backend
from ..middleware.logs import note
from .attendance import attend

logger = logging.getLogger(__name__)
KEY = re.compile(r"[!-~]{1,128}")


async def submit(backend: Backend, caller: Caller, request: Request, key: str | None = None) -> AsyncJobHandle[Any]:
    """Check a request, upload its media and send it, as the client does.

    Args:
        backend: of this process.
        caller: whose job it is.
        request: the call.
        key: idempotency key; it stands for the caller's tenant alone.

    Raises:
        QuotaExceeded: no job is left of today's.
        OmnifleetError: the errors of the client's calls.
    """
    check_arguments(request.namespace, request.arguments)
    named = _tenant_key(caller, key)
    await backend.admission.spend(caller)
    try:
        job = await _call(backend, caller, request, named)
    except BaseException:
        await backend.admission.refund(caller)
        raise
    note(job_id=job.id)
    task = f"{request.namespace}.{task_fields(request.namespace, request.arguments)['name']}"
    await asyncio.gather(backend.admission.claim(caller, job.id), backend.job_list.add(caller.tenant, job.id, task))
    return job


async def wait_for_outcome(
    backend: Backend, request: HttpRequest, job: AsyncJobHandle[Any], timeout: float | None, *, cancel: bool
) -> Any:
    """Wait for a job's result, as long as the request's own caller does; see `attend`.

    Raises:
        HungUp: the caller has hung up.
        ResultTimeout: not there in `timeout` seconds.
        OmnifleetError: the job failed.
    """
    return await attend(backend, request.receive, job, job.result(timeout), cancel=cancel)


async def settle(
    backend: Backend, request: HttpRequest, job: AsyncJobHandle[Any], timeout: float, *, cancel: bool
) -> None:
    """Wait until a job has an outcome, whatever it is, or time is over. Raises HungUp."""
    try:
        await wait_for_outcome(backend, request, job, timeout, cancel=cancel)
    except ResultTimeout:
        return
    except OmnifleetError as error:
        logger.debug("the job failed: %s", error, extra={"action": "job_failed"})


def _tenant_key(caller: Caller, key: str | None) -> str | None:
    if key is None:
        return None
    if key == AUTO or not KEY.fullmatch(key):
        remedy = "Give 1 to 128 printable ASCII characters, such as a UUID of the request"
        raise InvalidJob(f"{key[:80]!r} is no key", "Idempotency-Key", remedy)
    return key if caller.tenant is None else f"{caller.tenant}:{key}"


async def _call(backend: Backend, caller: Caller, request: Request, key: str | None) -> AsyncJobHandle[Any]:
    # What a call cannot do without is missing there as it is missing in a batch: its check names the field.
    needed: dict[str, Any] = {"task": None, **({"audio": None} if request.namespace == "edit" else {})}
    arguments = {**needed, **request.arguments, "idempotency_key": key}
    omni = backend.omni if caller.tenant is None else backend.omni.of_tenant(caller.tenant)
    try:
        job: AsyncJobHandle[Any] = await getattr(omni, request.namespace)(**arguments)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        details = {"type": type(error).__name__}
        raise InvalidJob(f"the call cannot be made: {error}", "body", "Check its arguments", details) from error
    return job
