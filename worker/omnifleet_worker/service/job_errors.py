"""Makes typed errors of whatever a job may raise."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from omnifleet_shared.errors import DiskFull, JobFailed, OmnifleetError

logger = logging.getLogger(__name__)


@contextmanager
def typed_job_errors(job_id: str) -> Iterator[None]:
    """Raise DiskFull for a disk without room, and JobFailed for what nobody foresaw; typed errors as they are."""
    try:
        yield
    except OmnifleetError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the worker's disk has no room: {error}", None, "Make room on it") from error
        extra = {"action": "job_crashed", "job_id": job_id}
        logger.exception("job failed unexpectedly: %s", job_id, extra=extra)
        name = type(error).__name__
        problem = f"the worker failed with {name}: {error}"
        raise JobFailed(problem, None, "Report it with the job id", {"type": name}) from error
