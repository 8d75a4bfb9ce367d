"""Celery's consumer, hardened: what cannot be read is answered with an error, what the worker cannot do goes back."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from celery.worker.consumer import Consumer
from celery.worker.state import requests, reserved_requests
from kombu.message import Message
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.errors import BrokerError, InvalidMessage
from omnifleet_shared.schema.base import JobId
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import ConnectionError

from ..observability.log_context import log_job
from .protocol.headers import check_message, followers, seconds_to_eta

if TYPE_CHECKING:
    from .worker import FleetWorker

logger = logging.getLogger(__name__)
_JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)
REFUSAL_PAUSE = 1.0
"""Seconds before a Redis that refuses is asked again: it answers at once, and so it would the next connection."""
EVENTS_INTERVAL = 0.2
"""Seconds between two messages with task events; Celery sends one at each turn of its loop, at a sixth of its work."""
GIVEN_BACK_SECONDS = 2.0
"""Seconds for which a message rests that this worker could not begin with."""
EVENTS_AT_ONCE = 500
"""Task events after which they are sent before that; Celery's own limit, 24, is that of eight jobs."""


class _FleetApp(Protocol):
    """A Celery app that a fleet worker runs."""

    fleet: FleetWorker
    consumer: Any


class WakeUp:
    """Wakes a loop that waits for its files to become readable, from any thread."""

    def __init__(self) -> None:
        self.writer, self.reader = socket.socketpair()
        self.writer.setblocking(False)
        self.reader.setblocking(False)

    def set(self) -> None:
        """Let the loop turn."""
        with suppress(BlockingIOError):  # it is full, so that the loop turns in any case
            self.writer.send(b"1")

    def clear(self) -> None:
        """Take note that it turns."""
        with suppress(BlockingIOError):
            self.reader.recv(4096)


class FleetConsumer(Consumer):
    """Answers a message that cannot be read with InvalidMessage, and takes it off the queue."""

    app: _FleetApp
    event_dispatcher: Any
    task_consumer: Any
    _has_events = False
    _events_timer: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app.consumer = self
        self._wake_up = WakeUp()

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        if self._events_timer is not None:
            self._events_timer.cancel()  # of the connection before
        self._events_timer = hub.call_repeatedly(EVENTS_INTERVAL, self._send_events)
        self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE
        hub.add_reader(self._wake_up.reader, self._take_waiting)
        self.app.fleet.lease_renewer.on_room = self._wake_up.set

    def _take_waiting(self) -> None:
        self._wake_up.clear()
        self.task_consumer.channel.deliver_waiting()

    def on_send_event_buffered(self) -> None:
        self._has_events = True

    def _send_events(self) -> None:
        if self._has_events:
            self._has_events = False
            self._flush_events()

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[..., None]:
        handle = super().create_task_handler(*args, **kwargs)

        def handle_any(message: Message) -> None:
            with log_job(_job_id(message)):
                try:
                    check_message(message)
                except Exception as error:  # Celery takes the message's form on trust, and would end the worker
                    self._refuse(message, error)
                    return
                wait = seconds_to_eta(message)
                if wait > 0:
                    self._postpone(message, wait)
                    return
                message.headers["eta"] = None
                try:
                    handle(message)
                except Exception as error:
                    self._give_back(message, error)

        return handle_any

    def cancel_active_requests(self) -> None:
        """Hand back all jobs at their next step: Celery's own way in a cold shutdown is to end processes."""
        self.app.fleet.drain(at_once=True)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        if not isinstance(exc, OSError | ConnectionError):
            time.sleep(REFUSAL_PAUSE)

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        self._refuse(message, exc)

    def on_invalid_task(self, body: Any, message: Message, exc: Exception) -> None:
        self._refuse(message, exc)

    def on_unknown_task(self, body: Any, message: Message, exc: Exception) -> None:
        self._refuse(message, ValueError(f"this worker has no task {exc}"))

    def on_unknown_message(self, body: Any, message: Message) -> None:
        self._refuse(message, ValueError("it is not a Celery message"))

    def _postpone(self, message: Message, seconds: float) -> None:
        # Not in this worker's memory, as Celery does: others may have the message once its time has come.
        extra = {"action": "message_postponed", "job_id": _job_id(message), "seconds": seconds}
        logger.info("message is not due for %.1f s", seconds, extra=extra)
        self.app.fleet.lease_renewer.postpone(str(message.delivery_tag), seconds)
        message.reject_log_error(logger, self.connection_errors)

    def _give_back(self, message: Message, error: Exception) -> None:
        """Give a good message back: that it is not carried out is the worker's trouble, and not the job's."""
        job_id = _job_id(message)
        extra = {"action": "message_given_back", "job_id": job_id}
        logger.exception("message goes back to the queue: %s", error, extra=extra)
        if (request := requests.pop(job_id, None)) is not None:
            reserved_requests.discard(request)  # it would fill a slot for ever
        self.app.fleet.lease_renewer.postpone(str(message.delivery_tag), GIVEN_BACK_SECONDS)
        message.reject_log_error(logger, self.connection_errors)

    def _refuse(self, message: Message, exc: Exception) -> None:
        job_id = _job_id(message)
        self.app.fleet.telemetry.metrics.jobs.refused()
        reason = str(exc) or type(exc).__name__
        logger.warning("message refused: %s", reason, extra={"action": "message_refused", "job_id": job_id})
        if job_id is not None:
            error = exc if isinstance(exc, InvalidMessage) else _unreadable(reason)
            attempts: Attempts = self.app.fleet.attempts
            try:
                self.app.fleet.states.record_unsent(followers(message), error)
                # Under the message's own lease, and never over the outcome of a job whose id it bears.
                attempts.fail(job_id, error, str(message.delivery_tag))
            except BrokerError:
                return  # not acknowledged: it comes again, and so does this
        message.ack_log_error(logger, self.connection_errors)


def _unreadable(reason: str) -> InvalidMessage:
    problem = f"the message cannot be read: {reason}"
    return InvalidMessage(problem, "job", "Send Celery's protocol 2 with a JSON body")


def _job_id(message: Message) -> str | None:
    try:
        return _JOB_ID.validate_python((message.headers or {}).get("id"))
    except (ValidationError, AttributeError):
        return None
