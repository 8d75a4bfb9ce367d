"""Where figures were taken."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

VERSIONS = ("omnifleet", "celery", "kombu", "redis")


def cpu() -> str:
    """The processor's name and how many cores there are."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Of Python and of what carries the jobs."""
    return {"python": platform.python_version(), **{name: version(name) for name in VERSIONS}}
