"""Metrics read at scrape time, because something else counts them already."""

from __future__ import annotations

from collections.abc import Iterator

from omnifleet_shared.broker.worker_registry import GpuRecord, WorkerRecord
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from ..lease_renewer import LeaseRenewer
from .health import Health
from .heartbeat import Heartbeat


class WorkerCollector(Collector):
    """Collects what the heartbeat reports of a worker of that queue, and the counts of leases."""

    def __init__(self, queue: str, heartbeat: Heartbeat, renewer: LeaseRenewer, health: Health) -> None:
        self._queue = queue
        self._heartbeat = heartbeat
        self._health = health
        self._renewer = renewer

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `Collector`."""
        record = self._heartbeat.record()
        yield from _leases(self._renewer)
        yield from _worker(record, self._queue)
        aside = float(self._health.out_of_service is not None)
        help_text = "1 while the worker stepped aside; its health page says why."
        yield GaugeMetricFamily("omnifleet_worker_out_of_service", help_text, value=aside)
        if record.gpu is not None:
            yield from gpu_metrics(record.gpu)


def _leases(renewer: LeaseRenewer) -> Iterator[Metric]:
    counts = renewer.counts
    yield CounterMetricFamily("omnifleet_lease_renewals", "Leases that were renewed.", value=counts.renewed)
    yield CounterMetricFamily("omnifleet_leases_lost", "Leases lost to another worker.", value=counts.lost)
    help_text = "Messages put back into the queue because their lease was over: of lost workers, or after a backoff."
    yield CounterMetricFamily("omnifleet_leases_recovered", help_text, value=counts.recovered)


def _worker(record: WorkerRecord, queue: str) -> Iterator[Metric]:
    about = {"name": record.name, "version": record.version, "device": record.device, "queue": queue}
    yield InfoMetricFamily("omnifleet_worker", "The worker process.", value=about)
    if record.checkpoint is not None:
        checkpoint = {"name": record.checkpoint, "revision": record.revision or ""}
        yield InfoMetricFamily("omnifleet_checkpoint", "The checkpoint that is loaded.", value=checkpoint)
    ready = float(record.state == "ready")
    yield GaugeMetricFamily("omnifleet_worker_ready", "1 while the worker takes jobs.", value=ready)
    yield GaugeMetricFamily("omnifleet_worker_places", "Jobs that the worker holds at once.", value=record.slots)
    yield GaugeMetricFamily("omnifleet_worker_held_jobs", "Jobs that it holds now.", value=record.held)
    help_text = "Requests that may share an engine step."
    yield GaugeMetricFamily("omnifleet_engine_places", help_text, value=record.engine_slots)
    help_text = "Share of time between two heartbeats in which the device worked for the model."
    yield GaugeMetricFamily("omnifleet_engine_busy_ratio", help_text, value=record.busy)
    help_text = "Share of that time in which the engine's thread worked, without its waits for device and requests."
    yield GaugeMetricFamily("omnifleet_engine_host_ratio", help_text, value=record.host)


def gpu_metrics(gpu: GpuRecord) -> Iterator[Metric]:
    """Yield the metrics of a worker's GPU."""
    help_text = "Memory of the GPU that is taken, by all processes."
    yield GaugeMetricFamily("omnifleet_gpu_memory_used_bytes", help_text, value=gpu.memory_used)
    yield GaugeMetricFamily("omnifleet_gpu_memory_total_bytes", "Memory of the GPU.", value=gpu.memory_total)
    if gpu.busy is not None:
        help_text = "Share of the driver's last sampling period in which a kernel ran."
        yield GaugeMetricFamily("omnifleet_gpu_busy_ratio", help_text, value=gpu.busy)
