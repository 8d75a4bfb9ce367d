"""Celery's own lines about its connection to Redis, of which a worker's log needs one for each outage."""

from __future__ import annotations

import logging

from celery.worker.consumer.consumer import CANCEL_TASKS_BY_DEFAULT, CONNECTION_ERROR, CONNECTION_RETRY
from omnifleet_shared.broker.transport import note_lost_connection, polls_fail

CONSUMER = "celery.worker.consumer.consumer"
CONNECTION = "celery.worker.consumer.connection"
WARNINGS = "py.warnings"
CONNECTED = "Connected to %s"


def quiet_reconnects() -> None:
    """Have each outage of Redis logged once, by the transport, and not at every one of Celery's tries to reconnect."""
    for name in (CONSUMER, CONNECTION, WARNINGS):
        logger = logging.getLogger(name)
        if _is_news not in logger.filters:
            logger.addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    if record.msg == CONNECTED:
        return not polls_fail()
    if record.name == WARNINGS:  # of the default of a setting that is set
        return CANCEL_TASKS_BY_DEFAULT not in record.getMessage()
    if record.msg not in (CONNECTION_ERROR, CONNECTION_RETRY):
        return True
    error = record.exc_info[1] if record.exc_info else record.args[1] if isinstance(record.args, tuple) else None
    if not isinstance(error, Exception):
        return True
    note_lost_connection(error)
    return False
