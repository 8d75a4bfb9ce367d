"""Looks now and then for jobs whose messages somebody took away, and tells those who wait for them."""

from __future__ import annotations

import logging
import threading

from omnifleet_shared.broker.removal.lost_messages import LostMessages
from omnifleet_shared.errors import BrokerError

logger = logging.getLogger(__name__)


class Reconciler:
    """Compares records and messages on a thread, one worker of a fleet at a time.

    Args:
        lost: finds the jobs; closed by `stop`.
        interval: seconds between two comparisons in a fleet.
    """

    def __init__(self, lost: LostMessages, interval: float) -> None:
        self._lost = lost
        self._interval = interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="reconciler", daemon=True)

    def start(self) -> None:
        """Compare now, if it is due, and then at every interval."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self._lost.close()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._lost.is_due(self._interval):
                    self._tell(self._lost.tell(self._lost.find()))
            except BrokerError as error:
                logger.warning("records go uncompared: %s", error, extra={"action": "reconciler_waits"})
            except Exception:
                logger.exception("the reconciler failed, and goes on", extra={"action": "reconciler_failed"})
            self._stopping.wait(self._interval)

    @staticmethod
    def _tell(lost: int) -> None:
        if lost:
            extra = {"action": "messages_lost", "jobs": lost}
            logger.error("%d jobs had lost their messages, and have failed: who deleted them?", lost, extra=extra)
