"""Task events for Flower, from many threads: none is lost on the way to Redis, and none is made that nobody hears."""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher

TASKS = "task"
"""The group of the events that each job has; heartbeats of workers are another one, and always sent."""


class FleetDispatcher(EventDispatcher):
    """Sends buffered events. Celery's own clears its buffer after sending, with what threads added meanwhile.

    Events of jobs, a tenth of what a worker does for a short one, are sent while somebody hears its heartbeats: Flower,
    say. With Celery's option `-E` they are sent always.
    """

    groups: set[str]

    def flush(self, errors: bool = True, groups: bool = True) -> None:
        """Send what is buffered; what is added meanwhile stays for the next time."""
        if errors:
            super().flush(errors=True, groups=False)
        if groups:
            with self.mutex:
                for group, events in list(self._group_buffer.items()):
                    taken = events[:]
                    if taken:
                        self._publish(taken, self.producer, f"{group}.multi")
                        del events[: len(taken)]

    def _publish(self, event: Any, producer: Any, routing_key: str, **options: Any) -> None:
        super()._publish(event, producer, routing_key, **options)
        if not self.groups:  # none named: all are sent
            return
        if producer.channel.listeners:
            self.groups.add(TASKS)
        else:
            self.groups.discard(TASKS)

    def extend_buffer(self, other: Any) -> None:
        """Take over what the dispatcher of a lost connection did not send."""
        super().extend_buffer(other)
        for group, events in list(other._group_buffer.items()):
            self._group_buffer[group].extend(events)


class FleetEvents(Events):
    """Makes such dispatchers."""

    dispatcher_cls = FleetDispatcher
