"""The processes that a benchmark starts: a Redis of its own and workers. All of them are gone after their block."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

HERE = Path(__file__).parent
# The starters are those of the tests: a second set would drift from them.
sys.path.insert(0, str(HERE.parent / "tests"))

from support.processes import RedisServer, free_port, process  # noqa: E402

__all__ = ["HERE", "free_port", "process", "redis_server", "workers"]


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run an empty Redis that keeps nothing on disk; gives its URL."""
    with RedisServer(free_port(), folder, is_durable=False).running() as server:
        yield server.url


@contextmanager
def workers(folder: Path, environment: Mapping[str, str], *scripts: str) -> Iterator[None]:
    """Run workers from scripts of this folder, started side by side; they are ready in the block."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(process([sys.executable, HERE / script], folder / f"{script}.log", environment))
            for script in scripts
        ]
        for worker in started:
            worker.wait_until_ready()
        yield
