"""How a worker logs: one line an event, each with a stable `action`, and the `job_id` where there is one."""

from __future__ import annotations

import logging

from pythonjsonlogger.json import JsonFormatter

FIELDS = "{asctime}{levelname}{name}{message}"


def configure_logging(level: int | str, form: str) -> None:
    """Send every log line of the process to stderr.

    Args:
        level: lowest level that is logged.
        form: `json` or `text`.
    """
    handler = logging.StreamHandler()
    if form == "json":
        renamed = {"asctime": "time", "levelname": "level", "name": "logger"}
        handler.setFormatter(JsonFormatter(FIELDS, style="{", rename_fields=renamed))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
