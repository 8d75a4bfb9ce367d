"""Configures logging: one line an event with a stable `action`, and the job's fields on each line of its life."""

from __future__ import annotations

import logging
from logging.handlers import WatchedFileHandler

from pythonjsonlogger.json import JsonFormatter

from .log_context import JobFields

FIELDS = "{asctime}{levelname}{name}{message}"


def _skip_unused_fields() -> None:
    """Leave out what no line shows and each line would look up (docs.python.org, "Logging HOWTO", Optimization)."""
    logging._srcfile = None  # pyright: ignore[reportPrivateUsage]
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def configure_logging(level: int | str, form: str, worker: str, file: str | None = None) -> None:
    """Send every log line of the process to one place.

    Args:
        level: lowest level that is logged.
        form: `json` or `text`.
        worker: name of the worker, on every line.
        file: opened anew once it was moved away; stderr by default.
    """
    handler = WatchedFileHandler(file) if file else logging.StreamHandler()
    handler.addFilter(JobFields(worker))
    if form == "json":
        renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(JsonFormatter(FIELDS, style="{", rename_fields=renamed))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    _skip_unused_fields()
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if logging.getLogger().level == logging.INFO:
        # What Celery says of a job's start and end, the delivery says with its fields.
        for name in ("celery.worker.strategy", "celery.app.trace"):
            logging.getLogger(name).setLevel(logging.WARNING)
