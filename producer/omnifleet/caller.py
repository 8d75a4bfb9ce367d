"""Who adds what all clients of a storage share."""

from __future__ import annotations

import getpass
import socket

from omnifleet_shared.settings import FleetSettings


def caller(settings: FleetSettings) -> str:
    """Name of `OMNIFLEET_PRODUCER`, or the user and the machine."""
    if settings.producer is not None:
        return settings.producer
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:200]
