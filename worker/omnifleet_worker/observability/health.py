"""Whether a worker process lives, and whether it is ready for jobs."""

from __future__ import annotations

from collections.abc import Callable

from omnifleet_shared.broker.worker_registry import WorkerState

from ..lease_renewer import LeaseKeeper


class Health:
    """Judged from what the consumer and the engine do, not from the process being there.

    Args:
        keeper: told of every time the consumer asks for messages.
        stalled: seconds since the engine last came to the end of a step; 0 while it has nothing to do.
        engine_patience: seconds that a step may take.
        poll_patience: seconds that may pass without asking for messages.
    """

    def __init__(
        self, keeper: LeaseKeeper, stalled: Callable[[], float], engine_patience: float, poll_patience: float
    ) -> None:
        self._keeper = keeper
        self._stalled = stalled
        self._engine_patience = engine_patience
        self._poll_patience = poll_patience
        self._loaded = False
        self._draining = False

    def loaded(self) -> None:
        """The checkpoint is there and the engine runs."""
        self._loaded = True

    def draining(self) -> None:
        """No more jobs are taken."""
        self._draining = True

    def why_not_alive(self) -> str | None:
        """What only a new process can mend. Loading is no such thing, and neither is Redis that is away."""
        stalled = self._stalled()
        if stalled > self._engine_patience:
            return f"the engine has not stepped for {stalled:.0f} s"
        if self._keeper.deaf_seconds > self._poll_patience:
            return f"no message was asked for in {self._keeper.deaf_seconds:.0f} s, with Redis there and places free"
        return None

    def why_not_ready(self) -> str | None:
        """Why the process takes no jobs, if so."""
        if self._draining:
            return "draining: running jobs finish, no new ones are taken"
        if not self._loaded:
            return "loading: the checkpoint is not there yet"
        if not self._keeper.has_polled:
            return "starting: no message was asked for yet"
        silent = self._keeper.silent_seconds
        if silent > self._poll_patience:
            return f"deaf: no message was asked for in {silent:.0f} s"
        return self.why_not_alive()

    def state(self) -> WorkerState:
        """In a word."""
        if self._draining:
            return "draining"
        if not self._loaded or not self._keeper.has_polled:
            return "loading"
        return "ready" if self.why_not_ready() is None else "unwell"
