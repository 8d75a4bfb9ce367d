"""Reports to Redis every few seconds that this worker is alive, and its state."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from omnifleet_shared.broker.worker_registry import WorkerRecord, WorkerRegistry
from omnifleet_shared.errors import BrokerError
from omnifleet_shared.keys import HEARTBEAT_INTERVAL
from omnifleet_shared.observability.outage_log import OutageLog
from omnifleet_shared.schema.capabilities import Capabilities

from ..lease_renewer import LeaseRenewer
from .device import Device
from .health import Health
from .metrics import WorkerMetrics

logger = logging.getLogger(__name__)


@dataclass
class _Window:
    """The engine's counters at a heartbeat, from which the next one takes the difference."""

    since: float
    busy_seconds: float = 0.0
    host_seconds: float = 0.0
    steps: int = 0
    stepped_requests: int = 0


class Heartbeat:
    """Reports the worker on a thread, from before the checkpoint is loaded until the worker has stopped.

    Args:
        name: the worker's name.
        workers: the registry in Redis.
        metrics: counts what the engine and the jobs did.
        health: judges the worker's state.
        renewer: knows the jobs that are held.
        device: opens the device; called once the checkpoint is loaded.
        storage: URI of the worker's storage.
    """

    def __init__(
        self,
        name: str,
        workers: WorkerRegistry,
        metrics: WorkerMetrics,
        health: Health,
        renewer: LeaseRenewer,
        device: Callable[[], Device],
        storage: str,
    ) -> None:
        self.worker = name
        self._version = version("omnifleet")
        self._workers = workers
        self._metrics = metrics
        self._health = health
        self._renewer = renewer
        self._make_device = device
        self._storage = storage
        self._device: Device | None = None
        self._capabilities: Capabilities | None = None
        self._engine_slots = 0
        self._started_at = datetime.now(UTC)
        self._window = _Window(time.monotonic())
        self._busy, self._host, self._batch = 0.0, 0.0, 0.0
        self._outages = OutageLog(logger, "heartbeat_unreachable", "no heartbeat", "the heart beats again")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Report until `stop`."""
        self._thread.start()

    def loaded(self, capabilities: Capabilities, engine_slots: int) -> None:
        """Report what the loaded model can do, the device, and the requests that may share a step, from now on."""
        self._capabilities = capabilities
        self._engine_slots = engine_slots
        self._device = self._make_device()

    def stop(self) -> None:
        """End the thread, and remove the worker from the registry."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(BrokerError):  # its record expires all the same, a little later
            self._workers.remove(self.worker)
        self._workers.close()

    def record(self) -> WorkerRecord:
        """Return the worker's record as it is now."""
        counts, model, device = self._metrics.jobs.counts, self._capabilities, self._device
        return WorkerRecord(
            name=self.worker,
            version=self._version,
            state=self._health.state(),
            reason=self._health.why_not_ready(),
            started_at=self._started_at,
            reported_at=datetime.now(UTC),
            checkpoint=model.name if model else None,
            revision=model.revision if model else None,
            capabilities=model,
            device=device.name if device else "none yet",
            gpu=device.gpu() if device else None,
            storage=self._storage,
            slots=self._renewer.places.total,
            engine_slots=self._engine_slots,
            held=self._renewer.held_jobs,
            batch=self._batch,
            busy=self._busy,
            host=self._host,
            succeeded=counts["succeeded"],
            failed=counts["failed"] + counts["quarantined"],
            retried=counts["retried"],
        )

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._measure()
                self._workers.report(self.record())
                self._outages.answered()
            except BrokerError as error:
                self._outages.failed(error)
            except Exception:
                logger.exception("the heartbeat failed, and goes on", extra={"action": "heartbeat_failed"})
            self._stopping.wait(HEARTBEAT_INTERVAL)

    def _measure(self) -> None:
        engine, last = self._metrics.engine, self._window
        now = _Window(time.monotonic(), engine.busy_seconds, engine.host_seconds, engine.steps, engine.stepped_requests)
        # A step is counted when it ends, and may have begun before the window.
        passed = max(now.since - last.since, 1e-9)
        self._busy = min(1.0, (now.busy_seconds - last.busy_seconds) / passed)
        self._host = min(1.0, (now.host_seconds - last.host_seconds) / passed)
        steps = now.steps - last.steps
        self._batch = (now.stepped_requests - last.stepped_requests) / steps if steps else 0.0
        self._window = now
