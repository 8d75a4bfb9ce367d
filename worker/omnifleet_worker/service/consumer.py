"""Celery's consumer, hardened: a message that cannot be read is answered with an error, and the worker goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from celery.worker.consumer import Consumer
from kombu.message import Message
from omnifleet_shared.broker.attempts import Attempts
from omnifleet_shared.errors import BrokerError, InvalidMessage
from omnifleet_shared.schema.base import JobId
from pydantic import TypeAdapter, ValidationError
from redis.exceptions import ConnectionError

from ..observability.log_context import log_job

if TYPE_CHECKING:
    from .worker import FleetWorker

logger = logging.getLogger(__name__)
_JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)
REFUSAL_PAUSE = 1.0
"""Seconds before a Redis that refuses is asked again: it answers at once, and so it would the next connection."""
EVENTS_INTERVAL = 0.2
"""Seconds between two messages with task events; Celery sends one at each turn of its loop, at a sixth of its work."""
EVENTS_AT_ONCE = 500
"""Task events after which they are sent before that; Celery's own limit, 24, is that of eight jobs."""


class _FleetApp(Protocol):
    """A Celery app that a fleet worker runs."""

    fleet: FleetWorker


class FleetConsumer(Consumer):
    """Answers a message that cannot be read with InvalidMessage, and takes it off the queue."""

    app: _FleetApp
    event_dispatcher: Any
    _has_events = False
    _events_timer: Any = None

    def register_with_event_loop(self, hub: Any) -> None:
        super().register_with_event_loop(hub)
        if self._events_timer is not None:
            self._events_timer.cancel()  # of the connection before
        self._events_timer = hub.call_repeatedly(EVENTS_INTERVAL, self._send_events)
        self.event_dispatcher.buffer_limit = EVENTS_AT_ONCE

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
                    _check_body(message)
                    handle(message)
                except Exception as error:  # Celery takes the body's form on trust, and would end the worker
                    self._refuse(message, error)

        return handle_any

    def add_task_queue(self, queue: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse `control add_consumer`: messages of another queue have no lease, and would be lost with the worker."""
        # Logged and not raised: Celery calls this from its event loop, which an error would end.
        remedy = f"start another with OMNIFLEET_QUEUE={queue}"
        logger.error("this worker serves one queue, not %s: %s", queue, remedy, extra={"action": "queue_refused"})

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

    def _refuse(self, message: Message, exc: Exception) -> None:
        job_id = _job_id(message)
        self.app.fleet.telemetry.metrics.jobs.refused()
        reason = str(exc) or type(exc).__name__
        logger.warning("message refused: %s", reason, extra={"action": "message_refused", "job_id": job_id})
        if job_id is not None:
            problem = f"the message cannot be read: {reason}"
            error = InvalidMessage(problem, "job", "Send Celery's protocol 2 with a JSON body")
            attempts: Attempts = self.app.fleet.attempts
            try:
                # Under the message's own lease, and never over the outcome of a job whose id it bears.
                attempts.fail(job_id, error, str(message.delivery_tag))
            except BrokerError:
                return  # not acknowledged: it comes again, and so does this
        message.ack_log_error(logger, self.connection_errors)


def _check_body(message: Message) -> None:
    """Raise unless the body is `[args, kwargs, embed]` (Celery's message protocol 2), in a serialiser we accept."""
    if "task" not in message.headers:
        raise ValueError("it is not a Celery message of protocol 2")
    args, kwargs, _ = message.payload
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise ValueError("its body is not [args, kwargs, embed]")


def _job_id(message: Message) -> str | None:
    try:
        return _JOB_ID.validate_python((message.headers or {}).get("id"))
    except (ValidationError, AttributeError):
        return None
