"""The queues that operators look at."""

from __future__ import annotations

from omnifleet_shared.broker.queue_stats import QueueStatsReader
from omnifleet_shared.broker.worker_registry import WorkerRegistry, reported_queues
from omnifleet_shared.catalogue import fleet_queues
from omnifleet_shared.settings import FleetSettings
from redis import Redis


def watched_queues(redis: Redis, settings: FleetSettings) -> list[str]:
    """List the queues of the settings' models, and of other models those with workers, jobs or dead letters.

    Others are those that ship, and those of which a worker ever reported.

    Raises:
        BrokerUnavailable: Redis does not answer.
    """
    named = settings.model_queues.values()
    queues = fleet_queues(settings, reported_queues(redis))
    return [queue for queue in queues if queue in named or _is_used(redis, queue)]


def _is_used(redis: Redis, queue: str) -> bool:
    if WorkerRegistry(redis, queue).all():
        return True
    found = QueueStatsReader(redis, queue).read()
    return bool(found.dead or found.suspects or any(level.waiting or level.leased for level in found.priorities))
