"""Task events that threads add while others are on their way."""

from __future__ import annotations

from types import SimpleNamespace
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


def dispatcher_of(app: Celery, **options: Any) -> FleetDispatcher:
    connection, buffered = Connection("memory://"), ["task"]
    return FleetDispatcher(connection, app=app, buffer_group=buffered, on_send_buffered=lambda: None, **options)


def test_an_event_that_comes_while_others_are_sent_is_sent_next() -> None:
    with Celery("test", broker="memory://", set_as_current=False) as app:
        dispatcher = dispatcher_of(app)
        dispatcher.producer = published = Published(dispatcher)
        dispatcher.send("task-received", uuid="early")

        dispatcher.flush()
        dispatcher.flush()
        dispatcher.flush()

    assert published.batches == [["early"], ["late"]]


class Heard:
    """A producer whose channel tells how many listen."""

    def __init__(self, listeners: int) -> None:
        self.channel = SimpleNamespace(listeners=listeners)
        self.kinds: list[str] = []

    def publish(self, events: Any, **_: Any) -> None:
        self.kinds.extend(event["type"] for event in ([events] if isinstance(events, dict) else events))


def test_events_of_jobs_are_sent_while_somebody_hears_the_heartbeats() -> None:
    with Celery("test", broker="memory://", set_as_current=False) as app:
        dispatcher = dispatcher_of(app, groups=["worker"])
        dispatcher.producer = heard = Heard(0)

        for heard.channel.listeners in (0, 1, 0):
            dispatcher.send("worker-heartbeat")
            dispatcher.send("task-received", uuid="a")
            dispatcher.flush()

    assert heard.kinds == ["worker-heartbeat", "worker-heartbeat", "task-received", "worker-heartbeat"]


def test_where_all_events_are_asked_for_all_are_sent() -> None:
    with Celery("test", broker="memory://", set_as_current=False) as app:
        dispatcher = dispatcher_of(app)
        dispatcher.producer = heard = Heard(0)

        for _ in range(2):
            dispatcher.send("worker-heartbeat")
            dispatcher.send("task-received", uuid="a")
            dispatcher.flush()

    assert heard.kinds == ["worker-heartbeat", "task-received"] * 2


def test_what_a_lost_connection_left_unsent_is_taken_over() -> None:
    with Celery("test", broker="memory://", set_as_current=False) as app:
        before, after = dispatcher_of(app), dispatcher_of(app)
        after.producer = published = Published(after)
        before.send("task-succeeded", uuid="of before")

        after.extend_buffer(before)
        after.flush()

    assert published.batches == [["of before"]]
