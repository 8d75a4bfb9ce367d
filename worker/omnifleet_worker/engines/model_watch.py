"""Asks a model every few seconds whether it can do jobs, and takes the worker out of service while it cannot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)
INTERVAL = 5.0
"""Seconds between two questions."""


class Service(Protocol):
    """What takes a worker out of service; see `Availability`."""

    @property
    def reason(self) -> str | None: ...

    def take_out_of_service(self, reason: str) -> None: ...

    def return_to_service(self) -> None: ...


class ModelWatch:
    """Watches one model.

    Args:
        why_unwell: returns why it can do nothing for now; None where it is well.
        service: of the worker.
        interval: seconds between two questions.
    """

    def __init__(self, why_unwell: Callable[[], str | None], service: Service, interval: float = INTERVAL) -> None:
        self._why_unwell = why_unwell
        self._service = service
        self._interval = interval
        self._reason: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-watch", daemon=True)

    def start(self) -> None:
        """Ask at once, so that no job is taken before, and then on a thread until `stop`."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Ask once, and do what the answer says."""
        reason = self._ask()
        if reason is not None and self._service.reason is None:
            self._reason = reason
            self._service.take_out_of_service(reason)
        # Not where it stepped aside for another reason meanwhile.
        elif reason is None and self._reason is not None and self._service.reason == self._reason:
            self._reason = None
            self._service.return_to_service()

    def _ask(self) -> str | None:
        try:
            return self._why_unwell()
        except Exception as error:
            logger.exception("the model cannot be asked how it is", extra={"action": "model_not_asked"})
            return f"its model cannot be asked how it is: {error}"

    def _watch(self) -> None:
        while not self._stopping.wait(self._interval):
            self.look()
