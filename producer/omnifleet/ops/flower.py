"""Flower over the fleet: behind a login, to look and not to touch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

from celery import Celery
from omnifleet_shared.broker.celery_app import create_app
from omnifleet_shared.errors import InvalidSetting
from omnifleet_shared.redis_client import connect_redis
from omnifleet_shared.redis_url import redis_address
from omnifleet_shared.settings import FleetSettings

from .flower_fleet import FleetApps, FleetControl, FleetEventReceiver

MIN_PASSWORD = 8
"""Characters of a password."""
COLUMNS = "uuid,name,state,args,kwargs,result,runtime,worker,received"
"""Columns of the task list; what does not fit a narrow screen comes last."""
MAX_TASKS = 10_000
"""Jobs that Flower remembers."""


def run_flower(settings: FleetSettings, host: str, port: int) -> None:
    """Serve Flower until stopped; everything else is Flower's own FLOWER_* in the environment.

    Raises:
        InvalidSetting: it is not installed, or nobody would have to log in.
        BrokerUnavailable, BrokerRefused: Flower could not work with this Redis, and would not say why.
    """
    if find_spec("flower") is None:
        raise InvalidSetting("Flower is not installed", "flower", "pip install 'omnifleet[flower]'")
    check_login(os.environ)
    app: Any = _create_app(settings)
    _show_whole_fleet(app, FleetApps(settings, connect_redis(settings), _create_app))
    options: dict[str, Any] = {
        "address": host,
        "port": port,
        "tasks_columns": COLUMNS,
        "max_tasks": MAX_TASKS,
        # Whoever may look may not yet cancel: `omnifleet cancel`, `celery control revoke`.
        "read_only": True,
        # Else it would run any flowerconfig.py of the working directory.
        "conf": os.devnull,
    }
    app.start(["flower", *(f"--{name}={value}" for name, value in options.items())])


def check_login(environment: Mapping[str, str]) -> None:
    """Raise InvalidSetting unless Flower asks everybody for a name and password, or a provider does."""
    if environment.get("FLOWER_AUTH") and environment.get("FLOWER_AUTH_PROVIDER"):
        return
    logins = [login.partition(":") for login in environment.get("FLOWER_BASIC_AUTH", "").split(",")]
    if not all(user and len(password) >= MIN_PASSWORD for user, _, password in logins):
        remedy = (
            f"Set it to name:password, with {MIN_PASSWORD} characters or more, or use FLOWER_AUTH with"
            " FLOWER_AUTH_PROVIDER"
        )
        raise InvalidSetting("Flower would show everybody everything", "FLOWER_BASIC_AUTH", remedy)


def _create_app(settings: FleetSettings) -> Celery:
    app: Any = create_app(settings)
    app.backend_cls = "disabled://"  # it would show answers, and links to results
    # Flower takes no jobs, and knows kombu's own transports by name.
    app.conf.broker_transport = None
    if settings.redis_sentinels is None:
        url = redis_address(settings).own_kombu_url
        app.conf.update(broker_read_url=url, broker_write_url=url)
    return cast(Celery, app)


def _show_whole_fleet(app: Any, apps: FleetApps) -> None:
    """Let Flower look at every queue. It has no settings for that: these three are what it asks."""
    from flower import events, views

    app.control = FleetControl(app, apps)
    events.EventReceiver = partial(FleetEventReceiver, apps=apps)
    # Its own answer has the queues of workers that live; jobs may wait in others.
    views.BaseHandler.get_active_queue_names = lambda self: list(apps())
