"""Routes the jobs of one client: by its settings, and by what the workers in Redis report."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from omnifleet_shared.broker.worker_registry import WorkerRecord
from omnifleet_shared.catalogue import SHIPPED
from omnifleet_shared.keys import HEARTBEAT_INTERVAL, MODEL, SCHEMA_VERSION
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.schema.model_card import AUDIO_OMNI
from omnifleet_shared.schema.results import Route
from omnifleet_shared.settings import FleetSettings

from .route import KnownModel, route

Workers = Callable[[str], Sequence[WorkerRecord]]
"""Reads the reports of the live workers of a queue. May raise BrokerUnavailable."""


class Router:
    """Chooses models. Safe to share between threads. Where there is no choice to make, it reads nothing.

    Args:
        settings: of the fleet.
        workers: reads who lives; asked for each queue once in two seconds, as often as workers report.
    """

    def __init__(self, settings: FleetSettings, workers: Workers) -> None:
        self._settings = settings
        self._read_workers = workers
        self._preferred = settings.model_queues
        self._seen: dict[str, tuple[float, Sequence[WorkerRecord]]] = {}

    @property
    def has_choice(self) -> bool:
        """Whether the settings name more than Audio-Omni alone in the fleet's own queue."""
        return self._preferred != {MODEL: self._settings.queue}

    def wish(self, model: str | None) -> str | None:
        """The model that a caller insists on: none where it is the fleet's only one."""
        return model if self.has_choice or model != MODEL else None

    def route(self, job: Job, *, pinned: str | None = None, wait: bool = True) -> Route | None:
        """Choose the model of a job; None for Audio-Omni in the fleet's own queue, where nobody asked for a choice.

        Raises: as `routing.route`; besides, BrokerUnavailable where there is a choice.
        """
        if pinned is None and wait and not self.has_choice:
            AUDIO_OMNI.validate_job(job)
            return None
        return route(job, self._models(pinned), pinned=pinned, wait=wait)

    def offered(self) -> list[KnownModel]:
        """List the models of the settings, in their order, and then others with a ready worker.

        Raises:
            BrokerUnavailable: Redis does not answer.
        """
        return [one for one in self._models(None) if one.preferred or one.live]

    def _models(self, pinned: str | None) -> list[KnownModel]:
        """What is known of the models of the settings, in their order, of the others that ship, and of a pinned one."""
        names = [*self._preferred, *SHIPPED, *([] if pinned is None else [pinned])]
        models = [self._model(name) for name in dict.fromkeys(names)]
        return [one for one in models if one.preferred or one.capabilities or one.live]

    def _model(self, name: str) -> KnownModel:
        queue = self._settings.queue_of(name)
        workers = self._workers(queue)
        reported = [one.capabilities for one in workers if one.capabilities is not None]
        distinct = [one for number, one in enumerate(reported) if one not in reported[:number]]
        return KnownModel(
            name=name,
            queue=queue,
            capabilities=distinct or ([SHIPPED[name]] if name in SHIPPED else []),
            live=any(one.state == "ready" for one in workers),
            preferred=name in self._preferred,
        )

    def _workers(self, queue: str) -> Sequence[WorkerRecord]:
        read_at, workers = self._seen.get(queue, (-HEARTBEAT_INTERVAL, ()))
        if time.monotonic() - read_at >= HEARTBEAT_INTERVAL:
            workers = self._read_workers(queue)
            self._seen[queue] = time.monotonic(), workers
        return workers


def routed(job: Job, chosen: Route | None) -> Job:
    """Return the job for the chosen model, in the oldest schema version that has all its fields."""
    if chosen is None:
        return job
    job = job.model_copy(update={"model": chosen.model})
    # So that workers of an older release still take what they can do.
    return job.model_copy(update={"schema_version": max(job.newer_fields.values(), default=SCHEMA_VERSION)})
