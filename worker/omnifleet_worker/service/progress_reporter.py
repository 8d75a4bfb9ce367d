"""One thread a process that tells Redis how far jobs are, and tells jobs what Redis says. Engines never wait for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from omnifleet_shared.errors import BrokerUnavailable
from omnifleet_shared.job_state.store import JobStates

from ..jobs.job_context import JobRun

logger = logging.getLogger(__name__)


class JobMonitor:
    """Publishes progress and looks for wishes to cancel, for all running jobs in two round trips.

    Args:
        states: of the fleet.
        interval: seconds between two looks.
    """

    def __init__(self, states: JobStates, interval: float) -> None:
        self._states = states
        self._interval = interval
        self._runs: list[JobRun] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="job-monitor", daemon=True)

    def start(self) -> None:
        """Look on a thread of its own until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def watching(self, run: JobRun) -> Iterator[None]:
        """Watch a job for the length of the block."""
        with self._lock:
            self._runs.append(run)
        try:
            yield
        finally:
            with self._lock:
                self._runs.remove(run)

    def look(self) -> None:
        """Report and ask once."""
        with self._lock:
            # A job whose lease was lost may have come back here while its first run ends: the newest one counts.
            runs = {run.job.job_id: run for run in self._runs}
        if not runs:
            return
        self._states.write_progress({job_id: run.report() for job_id, run in runs.items()})
        for job_id in self._states.cancelled(list(runs)):
            runs[job_id].cancel()

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self._states.wait_for_cancel(self._interval)
                self.look()
            except BrokerUnavailable as error:
                logger.warning("progress is not published: %s", error, extra={"action": "monitor_unreachable"})
                self._stopping.wait(self._interval)
            except Exception:
                logger.exception("the monitor failed, and goes on", extra={"action": "monitor_failed"})
                self._stopping.wait(self._interval)
