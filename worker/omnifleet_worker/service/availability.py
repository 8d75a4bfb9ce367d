"""Takes a worker out of service: for a fault of its own, not of its jobs, which others are to do meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from ..lease_renewer import LeaseRenewer, end_process
from ..observability.health import Health

logger = logging.getLogger(__name__)
HAND_BACK_SECONDS = 10.0
"""Time that running jobs have to end once the worker steps aside; what has not is handed back all the same."""


class RunningJobs(Protocol):
    """The jobs of this worker."""

    def hand_back(self, reason: str) -> None:
        """End every run at its next step, and give its message back; so with whatever comes before `take_again`."""
        ...

    def take_again(self) -> None:
        """Run what comes from now on."""
        ...

    def await_end(self, seconds: float) -> None:
        """Wait until all have ended, but no longer than that; what has not is recorded as handed back."""
        ...


class Availability:
    """Whether this worker takes jobs, and why not. Thread-safe; its methods return at once.

    Args:
        health: shows the reason on the health page, in heartbeats and in metrics.
        lease_renewer: takes no more messages, and hands back what is held.
        jobs: returns what runs the worker's jobs.
    """

    def __init__(self, health: Health, lease_renewer: LeaseRenewer, jobs: Callable[[], RunningJobs]) -> None:
        self._health = health
        self._lease_renewer = lease_renewer
        self._jobs = jobs
        self._lock = threading.Lock()
        self._exit_code: int | None = None

    @property
    def reason(self) -> str | None:
        """Why the worker is out of service; None while it is in service."""
        return self._health.out_of_service

    def take_out_of_service(self, reason: str, *, exit_code: int | None = None) -> None:
        """Take no more jobs and hand back those that run, without counting that against them.

        Args:
            reason: for operators, one sentence without its full stop. The first one stands until `return_to_service`.
            exit_code: ends the process with it once all jobs are handed back; without one the worker stays, out of
                service, until `return_to_service`.
        """
        with self._lock:
            ends_already = self._exit_code is not None
            if ends_already or (self.reason is not None and exit_code is None):
                return
            self._exit_code = exit_code
            self._lease_renewer.pause()
            self._health.out_of_service = reason
            self._jobs().hand_back(reason)
        extra = {"action": "out_of_service", "reason": reason, "exit_code": exit_code}
        logger.critical("the worker steps aside: %s", reason, extra=extra)
        threading.Thread(target=self._step_aside, args=(exit_code,), name="step-aside", daemon=True).start()

    def return_to_service(self) -> None:
        """Take jobs again; nothing where the worker is in service, or its process ends."""
        with self._lock:
            if self.reason is None or self._exit_code is not None:
                return
            self._jobs().take_again()
            self._health.out_of_service = None
            self._lease_renewer.resume()
        logger.warning("the worker is back in service", extra={"action": "back_in_service"})

    def _step_aside(self, exit_code: int | None) -> None:
        self._lease_renewer.hand_back_waiting()
        if exit_code is None:
            return  # each job goes back as it ends
        try:
            self._jobs().await_end(HAND_BACK_SECONDS)
        finally:
            self._lease_renewer.hand_back()
            end_process(exit_code)
