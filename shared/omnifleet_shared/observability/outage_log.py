"""Outages in the log: a line when one begins, another when it takes another turn, and one when it is over.

Whoever needs Redis tries several times a second; a line for each try would bury all others.
"""

from __future__ import annotations

import logging

from ..errors import OmnifleetError


class OutageLog:
    """Logs the outages of one activity. For use by one thread at a time.

    Args:
        logger: of the module whose activity it is.
        action: of the log line when it begins; the one at the end has `_over` behind it.
        consequence: what does not happen meanwhile, such as "leases are not renewed".
        over: what happens again afterwards.
    """

    def __init__(self, logger: logging.Logger, action: str, consequence: str, over: str) -> None:
        self._logger = logger
        self._action = action
        self._consequence = consequence
        self._over = over
        self._state: tuple[str, str] | None = None

    @property
    def lasts(self) -> bool:
        """Whether the last try failed."""
        return self._state is not None

    def failed(self, error: Exception) -> None:
        """Log the failure, unless the last one was of its kind."""
        state = type(error).__name__, str(error.details.get("reply", "")) if isinstance(error, OmnifleetError) else ""
        if state != self._state:
            self._state = state
            self._logger.warning("%s: %s", self._consequence, error, extra={"action": self._action})

    def answered(self) -> None:
        """Log that it goes on, where the last try had failed."""
        if self._state is not None:
            self._state = None
            self._logger.info("%s", self._over, extra={"action": f"{self._action}_over"})
