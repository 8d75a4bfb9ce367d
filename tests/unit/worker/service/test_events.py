"""Task events that threads add while others are on their way."""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Connection
from omnifleet_worker.service.protocol.events import FleetDispatcher


class Published:
    """A producer during whose work another thread sends an event."""

    def __init__(self, dispatcher: FleetDispatcher) -> None:
        self.batches: list[list[str]] = []
        self._dispatcher = dispatcher

    def publish(self, events: list[dict[str, Any]], **_: Any) -> None:
        self.batches.append([event["uuid"] for event in events])
        if len(self.batches) == 1:
            self._dispatcher.send("task-succeeded", uuid="late")


def dispatcher_of(app: Celery) -> FleetDispatcher:
    return FleetDispatcher(Connection("memory://"), app=app, buffer_group=["task"], on_send_buffered=lambda: None)


def test_an_event_that_comes_while_others_are_sent_is_sent_next() -> None:
    with Celery("test", broker="memory://", set_as_current=False) as app:
        dispatcher = dispatcher_of(app)
        dispatcher.producer = published = Published(dispatcher)
        dispatcher.send("task-received", uuid="early")

        dispatcher.flush()
        dispatcher.flush()
        dispatcher.flush()

    assert published.batches == [["early"], ["late"]]


def test_what_a_lost_connection_left_unsent_is_taken_over() -> None:
    with Celery("test", broker="memory://", set_as_current=False) as app:
        before, after = dispatcher_of(app), dispatcher_of(app)
        after.producer = published = Published(after)
        before.send("task-succeeded", uuid="of before")

        after.extend_buffer(before)
        after.flush()

    assert published.batches == [["of before"]]
