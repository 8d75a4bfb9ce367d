"""Judges whether a worker process is alive, and whether it is ready for jobs."""

from __future__ import annotations

from collections.abc import Callable

from omnifleet_shared.broker.worker_registry import WorkerState

from ..lease_renewer import LeaseRenewer


class Health:
    """Judges a worker by what its consumer and its engine do.

    Args:
        renewer: knows when the consumer last polled.
        engine_stalled: returns the seconds since the engine finished a step; 0 while it is idle.
        engine_timeout: seconds that a step may take.
        poll_timeout: seconds that may pass without polling for messages.
    """

    def __init__(
        self, renewer: LeaseRenewer, engine_stalled: Callable[[], float], engine_timeout: float, poll_timeout: float
    ) -> None:
        self._renewer = renewer
        self._engine_stalled = engine_stalled
        self._engine_timeout = engine_timeout
        self._poll_timeout = poll_timeout
        self._loaded = False
        self._draining = False
        self.out_of_service: str | None = None
        """Why the worker stepped aside, if it did."""

    def loaded(self) -> None:
        """Note that the checkpoint is loaded and the engine runs."""
        self._loaded = True

    def draining(self) -> None:
        """Note that no more jobs are taken."""
        self._draining = True

    def why_not_alive(self) -> str | None:
        """Return why only a new process can help, if so; loading is no reason, and neither is Redis that is away."""
        engine_stalled = self._engine_stalled()
        if engine_stalled > self._engine_timeout:
            return f"the engine has not stepped for {engine_stalled:.0f} s"
        poll_stalled = self._renewer.poll_stalled_seconds
        if poll_stalled > self._poll_timeout:
            return f"no message was polled for {poll_stalled:.0f} s, with Redis reachable and slots free"
        return None

    def why_not_ready(self) -> str | None:
        """Return why the process takes no jobs, if so."""
        if self._draining:
            return "draining: running jobs finish, no new ones are taken"
        if self.out_of_service is not None:
            return f"out of service: {self.out_of_service}"
        if not self._loaded:
            return "loading: the checkpoint is not there yet"
        if self._renewer.is_cancelled:
            return "consumer cancelled: running jobs finish, none are taken until `celery control add_consumer`"
        if not self._renewer.has_polled:
            return "starting: no message was polled yet"
        since_poll = self._renewer.seconds_since_poll
        if since_poll > self._poll_timeout:
            return f"poll stalled: no message was polled for {since_poll:.0f} s"
        return self.why_not_alive()

    def state(self) -> WorkerState:
        """Return the state for the heartbeat."""
        if self._draining:
            return "draining"
        if self.out_of_service is not None:
            return "unwell"
        if not self._loaded or not self._renewer.has_polled:
            return "loading"
        if self._renewer.is_cancelled:
            return "draining"
        return "ready" if self.why_not_ready() is None else "unwell"
