"""Flower over the fleet: behind a login, to look and not to touch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import closing
from importlib.util import find_spec
from typing import Any

from omnifleet_shared.broker.celery_app import create_app
from omnifleet_shared.errors import InvalidSetting
from omnifleet_shared.redis_client import connect_redis, typed_redis_errors
from omnifleet_shared.redis_url import redis_address
from omnifleet_shared.settings import FleetSettings

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
    """
    if find_spec("flower") is None:
        raise InvalidSetting("Flower is not installed", "flower", "pip install 'omnifleet[flower]'")
    check_login(os.environ)
    check_redis(settings)
    app: Any = create_app(settings)
    app.backend_cls = "disabled://"  # it would show answers, and links to results
    # Flower takes no jobs, and knows kombu's own transports by name.
    app.conf.broker_transport = None
    if settings.redis_sentinels is None:
        url = redis_address(settings).own_kombu_url
        app.conf.update(broker_read_url=url, broker_write_url=url)
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


def check_redis(settings: FleetSettings) -> None:
    """Raise BrokerUnavailable or BrokerRefused where Flower could not work with this Redis, and would not say why."""
    with closing(connect_redis(settings)) as redis, typed_redis_errors():
        redis.ping()


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
