"""Metrics of the fleet's queues for Prometheus, read from Redis at every scrape."""

from __future__ import annotations

import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, cast, get_args

from omnifleet_shared.broker.queue_stats import PriorityStats, QueueStats, QueueStatsReader, TenantStats
from omnifleet_shared.broker.worker_registry import SeenWorker, WorkerRegistry, WorkerState
from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.observability.http_server import PageServer
from omnifleet_shared.redis_client import connect_redis, typed_redis_errors
from omnifleet_shared.settings import FleetSettings
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from redis import Redis

from .queues import watched_queues

logger = logging.getLogger(__name__)
UP = "omnifleet_redis_up"


class FleetCollector(Collector):
    """Collects metrics of the queues, their workers and Redis; `omnifleet_redis_up` alone, 0, where none answers.

    A queue that was shown once is shown until the process ends, so that its numbers fall to 0 and do not vanish.

    Args:
        settings: Redis, and the queues of the fleet's models.
    """

    def __init__(self, settings: FleetSettings) -> None:
        self._redis = connect_redis(settings)
        self._settings = settings
        self._readers: dict[str, tuple[QueueStatsReader, WorkerRegistry]] = {}

    def close(self) -> None:
        """Close the connections to Redis."""
        self._redis.close()

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering does not read Redis."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Read Redis; see `Collector`."""
        try:
            found = [*self._queues(), *_server(self._redis)]
        except OmnifleetError as error:
            logger.warning("Redis does not answer: %s", error, extra={"action": "exporter_unreachable"})
            return [GaugeMetricFamily(UP, "1 where Redis answers.", value=0)]
        return [GaugeMetricFamily(UP, "1 where Redis answers.", value=1), *found]

    def _queues(self) -> Iterator[Metric]:
        for queue in watched_queues(self._redis, self._settings):
            if queue not in self._readers:
                self._readers[queue] = QueueStatsReader(self._redis, queue), WorkerRegistry(self._redis, queue)
        yield from _stats([stats.read() for stats, _ in self._readers.values()])
        yield from _workers({queue: workers.all() for queue, (_, workers) in self._readers.items()})


BY_PRIORITY: dict[str, tuple[str, Callable[[PriorityStats], float]]] = {
    "queue_jobs": ("Jobs that wait in the queue.", lambda level: level.waiting),
    "leased_jobs": (
        "Jobs under lease: with workers, or waiting for another attempt.",
        lambda level: level.leased,
    ),
    "postponed_jobs": ("Those of them that wait for another attempt.", lambda level: level.postponed),
    "oldest_job_age_seconds": (
        "Time since the submission of the oldest job that waits in the queue; 0 where none does.",
        lambda level: level.oldest_age,
    ),
}


BY_TENANT: dict[str, tuple[str, Callable[[TenantStats], float]]] = {
    "tenant_jobs": ("Jobs of a tenant that wait in the queue.", lambda tenant: tenant.waiting),
    "tenant_leased_jobs": (
        "Jobs of a tenant under lease: with workers, or waiting for another attempt.",
        lambda tenant: tenant.leased,
    ),
    "tenant_oldest_job_age_seconds": (
        "Time since the submission of the tenant's next job; 0 where none waits.",
        lambda tenant: tenant.oldest_age,
    ),
}


BY_QUEUE: dict[str, tuple[str, Callable[[QueueStats], float]]] = {
    "suspect_jobs": (
        "Jobs that wait in the queue to run alone, because their worker was lost.",
        lambda found: found.suspects,
    ),
    "dead_letters": ("Jobs that were dead-lettered.", lambda found: found.dead),
    "last_minute_finished_jobs": ("Jobs that ended in the last full minute.", lambda found: found.finished),
}


def _stats(queues: Sequence[QueueStats]) -> Iterator[Metric]:
    for name, (meaning, value) in BY_PRIORITY.items():
        family = GaugeMetricFamily(f"omnifleet_{name}", meaning, labels=["queue", "priority"])
        for found in queues:
            for level in found.priorities:
                family.add_metric([found.queue, level.priority], value(level))
        yield family
    for name, (meaning, value_of) in BY_TENANT.items():
        family = GaugeMetricFamily(f"omnifleet_{name}", meaning, labels=["queue", "tenant"])
        for found in queues:
            for tenant in found.tenants:
                family.add_metric([found.queue, tenant.tenant], value_of(tenant))
        yield family
    for name, (meaning, number) in BY_QUEUE.items():
        yield _gauge(name, meaning, {found.queue: number(found) for found in queues})
    yield _gpu_seconds(queues)


def _gpu_seconds(queues: Sequence[QueueStats]) -> Metric:
    """Of all queues together: each of them knows a tenant's whole use, and was read a moment after the one before."""
    used = CounterMetricFamily("omnifleet_tenant_gpu_seconds", "GPU time that a tenant's jobs took.", labels=["tenant"])
    for name, seconds in {one.tenant: one.gpu_seconds for found in queues for one in found.tenants}.items():
        used.add_metric([name], seconds)
    return used


def _workers(queues: Mapping[str, Sequence[SeenWorker]]) -> Iterator[Metric]:
    workers = GaugeMetricFamily("omnifleet_workers", "Workers that live, by state.", labels=["queue", "state"])
    for queue, seen in queues.items():
        states = Counter(one.record.state for one in seen)
        for state in cast(tuple[str, ...], get_args(WorkerState)):
            workers.add_metric([queue, state], states[cast(Any, state)])
    yield workers
    meaning = "Requests that may share the steps of all workers that are ready."
    yield _gauge("fleet_engine_places", meaning, {queue: _places(seen) for queue, seen in queues.items()})


def _places(seen: Sequence[SeenWorker]) -> int:
    return sum(one.record.engine_slots for one in seen if one.record.state == "ready")


def _server(redis: Redis) -> Iterator[Metric]:
    with typed_redis_errors():
        info = cast(Any, redis).info()
    used, most = info["used_memory"], info["maxmemory"]
    yield GaugeMetricFamily("omnifleet_redis_memory_used_bytes", "Memory that Redis takes.", value=used)
    yield GaugeMetricFamily("omnifleet_redis_memory_max_bytes", "Memory that Redis may take; 0: no limit.", value=most)
    written = info.get("aof_enabled") == 1 and info.get("aof_last_write_status") == "ok"
    yield GaugeMetricFamily("omnifleet_redis_aof_ok", "1 where every job is written to disk too.", value=written)


def _gauge(name: str, meaning: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"omnifleet_{name}", meaning, labels=["queue"])
    for queue, value in values.items():
        family.add_metric([queue], value)
    return family


def serve(settings: FleetSettings, host: str, port: int) -> None:
    """Answer scrapes until SIGTERM or SIGINT. Raises InvalidSetting where nothing can listen there."""
    registry, stop = CollectorRegistry(), threading.Event()
    with closing(FleetCollector(settings)) as collector:
        registry.register(collector)
        server = PageServer(host, port, registry, {"/livez": lambda: None}, "--port")
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: stop.set())
        server.start()
        stop.wait()
        server.stop()
