"""All queues of a fleet as one to Flower: each queue's workers have a channel of their own for commands and for events,
and Flower knows those of one app."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Lock
from typing import Any

from celery import Celery
from celery.app.control import Control
from celery.events import EventReceiver
from omnifleet_shared.broker.worker_registry import reported_queues
from omnifleet_shared.catalogue import fleet_queues
from omnifleet_shared.errors import BrokerUnavailable
from omnifleet_shared.settings import FleetSettings
from redis import Redis

REFRESH = 5.0
"""Seconds between two looks for queues that came."""


class FleetApps:
    """The queues of a fleet, with a Celery app for each. Safe to share between threads.

    Queues are those of the settings' models, and those whose workers ever reported, from the first look after that.

    Args:
        settings: of the fleet.
        redis: of the fleet.
        create: makes the app of the settings' queue.

    Raises:
        BrokerUnavailable, BrokerRefused: Redis cannot be asked at the start; later outages are waited for.
    """

    def __init__(self, settings: FleetSettings, redis: Redis, create: Callable[[FleetSettings], Celery]) -> None:
        self._settings, self._redis, self._create = settings, redis, create
        self._lock = Lock()
        self._apps: dict[str, Celery] = {}
        self._looked_at = time.monotonic()
        self._look()

    def __call__(self) -> dict[str, Celery]:
        """Give the apps by their queues."""
        with self._lock:
            if time.monotonic() - self._looked_at >= REFRESH:
                self._looked_at = time.monotonic()
                with suppress(BrokerUnavailable):  # Flower itself says so
                    self._look()
            return dict(self._apps)

    def _look(self) -> None:
        wanted = {self._settings.queue, *self._settings.model_queues.values(), *reported_queues(self._redis)}
        for queue in fleet_queues(self._settings, wanted):
            if queue in wanted and queue not in self._apps:
                self._apps[queue] = self._create(self._settings.model_copy(update={"queue": queue}))


class FleetControl(Control):
    """Sends Celery's commands to the workers of every queue.

    Args:
        app: of Flower.
        apps: gives those of all queues.
    """

    def __init__(self, app: Celery, apps: Callable[[], dict[str, Celery]]) -> None:
        super().__init__(app)
        self._apps = apps

    def broadcast(self, command: str, *arguments: Any, reply: bool = False, **options: Any) -> list[Any] | None:
        """Send a command as Celery's `Control` does; gives the replies of all queues' workers, if asked to wait."""
        controls = [app.control for app in self._apps().values()]
        if not reply:
            for control in controls:
                control.broadcast(command, *arguments, **options)
            return None
        # At once: each waits for workers that do not answer.
        with ThreadPoolExecutor(len(controls)) as pool:
            waiting = [pool.submit(one.broadcast, command, *arguments, reply=True, **options) for one in controls]
            return [answer for one in waiting for answer in one.result() or ()]


class FleetEventReceiver(EventReceiver):
    """Hears the events of every queue's workers, until there is one queue more: Flower then makes another receiver.

    Args:
        channel: channel or connection that it hears through.
        apps: gives the apps of all queues.
        options: as Celery's receiver takes them.
    """

    def __init__(self, channel: Any, *, apps: Callable[[], dict[str, Celery]], **options: Any) -> None:
        super().__init__(channel, **options)
        self._apps = apps
        self._heard = apps()

    def get_consumers(self, Consumer: Any, channel: Any) -> list[Any]:  # noqa: N803 # as kombu calls it
        """Make the consumer of all queues' events."""
        queues = [EventReceiver(self.channel, node_id=self.node_id, app=app).queue for app in self._heard.values()]
        return [Consumer(queues=queues, callbacks=[self._receive], no_ack=True, accept=self.accept)]

    def on_iteration(self) -> None:
        """End where a queue came. kombu's channel subscribes once, so that it could not be added."""
        self.should_stop = self._apps().keys() != self._heard.keys()
