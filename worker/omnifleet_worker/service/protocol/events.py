"""Task events for Flower, from many threads: none is lost on the way to Redis."""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher


class FleetDispatcher(EventDispatcher):
    """Sends buffered events. Celery's own clears its buffer after sending, with what threads added meanwhile."""

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

    def extend_buffer(self, other: Any) -> None:
        """Take over what the dispatcher of a lost connection did not send."""
        super().extend_buffer(other)
        for group, events in list(other._group_buffer.items()):
            self._group_buffer[group].extend(events)


class FleetEvents(Events):
    """Makes such dispatchers."""

    dispatcher_cls = FleetDispatcher
