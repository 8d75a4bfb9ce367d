"""The app of `celery -A omnifleet.ops.celery`: Celery's own commands on a fleet, where no worker is installed."""

from __future__ import annotations

from typing import Any

from omnifleet_shared.broker.celery_app import create_app
from omnifleet_shared.settings import FleetSettings, load_settings


def __getattr__(name: str) -> Any:
    if name == "app":  # made when Celery asks for it, so that importing this module reads no environment
        app = globals()["app"] = create_app(load_settings(FleetSettings))
        return app
    raise AttributeError(name)
