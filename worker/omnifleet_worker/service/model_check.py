"""Finds out whose fault an unforeseen error is: the job's, or the worker's whose model fails every job.

A circuit breaker: when different jobs fail one after the other with the same unforeseen error, and none succeeds in
between, the worker asks its own model for a clip and an answer. Where they fail as well, its jobs go back uncounted and
the process ends. Where they come, the jobs are at fault.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import TimeoutError as FutureTimeout

from omnifleet_shared.errors import JobFailed, OmnifleetError

from ..engine.engine import Engine
from ..engine.request import Inputs, Request
from ..lease_renewer import EXIT_BROKEN
from .availability import Availability

logger = logging.getLogger(__name__)
FAILURES = 3
"""Different jobs that fail in a row with the same unforeseen error, before the worker looks at itself."""
PROBE_SECONDS = 60.0
"""Longest wait for the outcomes of the worker's own probes; busy as it may be, it tells nothing if they take longer."""


class ModelCheck:
    """Counts unforeseen errors, and takes a worker out of service whose model fails. Thread-safe.

    Args:
        engine: runs the model.
        availability: takes the worker out of service.
        probes: what the model is asked.
        probe_seconds: longest wait for the probe.
    """

    def __init__(
        self,
        engine: Engine,
        availability: Availability,
        probes: Sequence[Inputs],
        *,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._engine = engine
        self._availability = availability
        self._probes = probes
        self._probe_seconds = probe_seconds
        self._lock = threading.Lock()
        self._error = ""
        self._jobs: set[str] = set()

    @property
    def failed_in_a_row(self) -> int:
        """Different jobs that failed with the same unforeseen error since one succeeded."""
        return len(self._jobs)

    def succeeded(self) -> None:
        """A job succeeded: the model works."""
        self._jobs = set()

    def is_workers_fault(self, job_id: str, error: JobFailed) -> bool:
        """Count an unforeseen error of a job; where many failed with it, probe the model, and end the worker for it."""
        with self._lock:
            if self._availability.reason is not None:
                return True
            self._count(job_id, error)
            if len(self._jobs) < FAILURES:
                return False
            found = self._probe()
            if found is None:
                extra = {"action": "model_probed", "jobs": len(self._jobs)}
                logger.warning("%d jobs failed alike, and the model works: %s", len(self._jobs), error, extra=extra)
                self.succeeded()
                return False
            reason = f"{len(self._jobs)} jobs in a row failed, and its own probe did: {found.problem}"
            self._availability.take_out_of_service(reason, exit_code=EXIT_BROKEN)
            return True

    def _count(self, job_id: str, error: JobFailed) -> None:
        # Sizes, addresses and names of files differ from job to job.
        kind = re.sub(r"\d+", "0", error.problem)
        self._jobs = {job_id} if kind != self._error else self._jobs | {job_id}
        self._error = kind

    def _probe(self) -> OmnifleetError | None:
        """Ask for something small; gives the unforeseen error with which that fails."""
        requests = [Request(inputs=probe) for probe in self._probes]
        try:
            for request in requests:
                self._engine.submit(request)
            for request in requests:
                request.outcome.result(self._probe_seconds)
        except JobFailed as error:
            return error
        except (OmnifleetError, FutureTimeout) as error:
            logger.warning("the probe tells nothing: %s", error, extra={"action": "model_not_probed"})
        finally:
            for request in requests:
                request.cancel()
        return None
