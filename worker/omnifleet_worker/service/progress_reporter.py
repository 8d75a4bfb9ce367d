"""Publishes the progress of running jobs and cancels those that Redis says are unwanted, on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from omnifleet_shared.errors import BrokerError
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.observability.outage_log import OutageLog

from ..jobs.job_context import JobContext

logger = logging.getLogger(__name__)


class ProgressReporter:
    """Publishes progress and reads requests to cancel, for all running jobs in two round trips.

    Args:
        states: the job states in Redis.
        interval: seconds between two reports.
    """

    def __init__(self, states: JobStates, interval: float) -> None:
        self._states = states
        self._interval = interval
        self._runs: list[JobContext] = []
        self._lock = threading.Lock()
        about = ("progress is not published", "progress is published again")
        self._outages = OutageLog(logger, "progress_unreachable", *about)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="progress-reporter", daemon=True)

    def start(self) -> None:
        """Report on a thread of its own until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def tracking(self, context: JobContext) -> Iterator[None]:
        """Report a job's progress, and cancel it on request, during the block."""
        with self._lock:
            self._runs.append(context)
        try:
            yield
        finally:
            with self._lock:
                self._runs.remove(context)

    def report_once(self) -> None:
        """Publish the progress of all running jobs and cancel those asked to stop, once."""
        with self._lock:
            # A job whose lease was lost may have come back here while its first run ends: the newest one counts.
            contexts = {context.job.job_id: context for context in self._runs}
        if not contexts:
            return
        self._states.write_progress({job_id: context.report() for job_id, context in contexts.items()})
        for job_id in self._states.cancelled(list(contexts)):
            contexts[job_id].cancel()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._states.wait_for_cancel(self._interval)
                self.report_once()
                self._outages.answered()
            except BrokerError as error:
                self._outages.failed(error)
                self._stopping.wait(self._interval)
            except Exception:
                logger.exception(
                    "the progress reporter failed, and goes on", extra={"action": "progress_reporter_failed"}
                )
                self._stopping.wait(self._interval)
