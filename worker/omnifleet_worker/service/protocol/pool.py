"""Celery's pool of threads, on a machine that may have none left."""

from __future__ import annotations

import logging
from typing import Any

from celery.concurrency.thread import TaskPool

logger = logging.getLogger(__name__)


class FleetPool(TaskPool):
    """Runs deliveries on threads. Where the machine gives no further thread, a delivery waits for one that is there."""

    def on_start(self) -> None:
        """Start the first thread. Raises RuntimeError where there is not even one."""
        super().on_start()
        self.executor.submit(lambda: None).result()

    def on_apply(self, *args: Any, **kwargs: Any) -> Any:
        """Run a delivery on a thread. It waits under its lease for one, and goes to another worker if that ends."""
        try:
            return super().on_apply(*args, **kwargs)
        except RuntimeError as error:
            if "start new thread" not in str(error):
                raise
            # It is in the executor's queue already, which its other threads empty.
            logger.error("no thread is left: jobs wait for those that run", extra={"action": "threads_exhausted"})
            return None
