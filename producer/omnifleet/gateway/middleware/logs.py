"""Logging of a gateway process: one line an event, with the request that it belongs to."""

from __future__ import annotations

import logging
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

request_fields: ContextVar[dict[str, object] | None] = ContextVar("request", default=None)
"""Fields of the current request, which all of its log lines carry. They are added to as more is known."""


class RequestFields(logging.Filter):
    """Gives every record the fields of the request that it is written for."""

    def filter(self, record: logging.LogRecord) -> bool:
        for name, value in (request_fields.get() or {}).items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


def note(**fields: object) -> None:
    """Put more fields on the log lines of the current request from now on."""
    if (current := request_fields.get()) is not None:
        current.update(fields)


def configure_logging(form: str) -> None:
    """Send every log line of the process to stderr, as `json` or `text`."""
    handler = logging.StreamHandler()
    handler.addFilter(RequestFields())
    if form == "json":
        renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(JsonFormatter("{asctime}{levelname}{name}{message}", style="{", rename_fields=renamed))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What it says of its start and end, the gateway says itself.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
