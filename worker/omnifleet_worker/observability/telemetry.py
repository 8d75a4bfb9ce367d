"""Assembles a worker's metrics, heartbeats, health pages and traces."""

from __future__ import annotations

import logging
from collections.abc import Callable

from omnifleet_shared.broker.worker_registry import WorkerRegistry
from omnifleet_shared.errors import DeviceFailed
from omnifleet_shared.observability.http_server import PageServer
from omnifleet_shared.observability.tracing import export_traces
from omnifleet_shared.schema.capabilities import Capabilities
from omnifleet_shared.storage import Storage, storage_home

from ..lease_renewer import LeaseRenewer
from ..settings import WorkerSettings
from .collector import WorkerCollector
from .device import Device
from .health import Health
from .heartbeat import Heartbeat
from .metered_storage import MeteredStorage
from .metrics import WorkerMetrics

logger = logging.getLogger(__name__)


class Telemetry:
    """Counts metrics always, sends heartbeats from `start` on, and serves HTTP pages where the settings name a port.

    Args:
        name: the worker's name.
        settings: port and timeouts.
        renewer: renews the worker's leases.
        engine_stalled: returns the seconds since the engine finished a step; 0 while it is idle.
        on_device_failed: called where a report of the device finds it broken.
    """

    def __init__(
        self,
        name: str,
        settings: WorkerSettings,
        renewer: LeaseRenewer,
        engine_stalled: Callable[[], float],
        on_device_failed: Callable[[DeviceFailed], None],
    ) -> None:
        self.metrics = WorkerMetrics()
        self.health = Health(renewer, engine_stalled, settings.engine_patience, settings.poll_patience)
        self._settings = settings
        self._heartbeat = Heartbeat(
            name,
            WorkerRegistry.connect(settings),
            self.metrics,
            self.health,
            renewer,
            lambda: Device(settings.device, on_device_failed),
            storage_home(settings),
        )
        self.metrics.registry.register(WorkerCollector(settings.queue, self._heartbeat, renewer, self.health))
        self._pages: PageServer | None = None

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self._heartbeat.worker

    @worker.setter
    def worker(self, name: str) -> None:
        self._heartbeat.worker = name

    def start(self) -> None:
        """Serve pages and send heartbeats, before anything is loaded. Raises InvalidSetting where the port is taken."""
        if self._settings.http_port is not None:
            checks = {"/livez": self.health.why_not_alive, "/readyz": self.health.why_not_ready}
            host, port = self._settings.http_host, self._settings.http_port
            self._pages = PageServer(host, port, self.metrics.registry, checks, "OMNIFLEET_HTTP_PORT")
            self._pages.start()
            logger.info("health and metrics on port %d", self._pages.port, extra={"action": "http_started"})
        export_traces("omnifleet-worker", self.worker)
        self._heartbeat.start()

    def loaded(self, capabilities: Capabilities, engine_slots: int) -> None:
        """Report what the loaded model can do, and the requests that may share a step of the engine."""
        self._heartbeat.loaded(capabilities, engine_slots)
        self.health.loaded()

    def watch(self, storage: Storage) -> Storage:
        """Wrap a storage so that its errors are counted."""
        return MeteredStorage(storage, self.metrics.storage_errors)

    def stop(self) -> None:
        """Remove the worker from the registry and close its pages."""
        self._heartbeat.stop()
        if self._pages is not None:
            self._pages.stop()
