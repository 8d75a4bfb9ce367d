"""Redis and S3, with a proxy before each of them for every worker, and one for the clients."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnifleet_shared.settings import FleetSettings
from support.services import RedisServer, S3Server, free_port, s3_server

from .proxy import Proxy, Trouble

Pause = Callable[[], object]
"""Returns when what goes wrong is to end."""
BUCKET = "chaos"
LEASE = 4.0
"""Seconds of a lease: short, so that jobs of killed workers come back soon, and renewed in time on a busy machine."""
REDIS_TIMEOUT = 2.0
"""Seconds after which an answer of Redis is given up: short, so that a connection that fell silent is soon left."""
DURABLE = ("--appendfsync", "always")
"""What Redis acknowledged is on the disk, and outlives its own kill -9."""


@dataclass(frozen=True)
class Link:
    """The way of one worker, or of the clients, to both servers."""

    name: str
    redis: Proxy
    s3: Proxy

    @property
    def settings(self) -> FleetSettings:
        """Settings of whoever goes this way."""
        return FleetSettings(
            redis_url=f"redis://127.0.0.1:{self.redis.port}/0",
            redis_timeout=REDIS_TIMEOUT,
            storage=f"s3://{BUCKET}",
            s3_endpoint=f"http://127.0.0.1:{self.s3.port}",
            lease=LEASE,
        )


def make_trouble(proxies: Iterable[Proxy], trouble: Trouble, pause: Pause) -> None:
    """Make the same trouble at several proxies for the pause."""
    with ExitStack() as stack:
        for proxy in proxies:
            proxy.begin(trouble)
            stack.callback(proxy.end, trouble)
        pause()


class Servers:
    """Redis and S3 of one run; use `running`.

    Args:
        folder: for their files.
        workers: number of links besides that of the clients.
        rng: decides what the proxies lose.
    """

    def __init__(self, folder: Path, workers: int, rng: random.Random) -> None:
        self._folder = folder
        (folder / "redis").mkdir()
        self.redis = RedisServer(free_port(), folder / "redis", DURABLE)
        self._redis_up = ExitStack()
        self._size = workers
        self._rng = rng
        self.credentials: dict[str, str]
        """Environment variables for S3."""
        self.clients: Link
        self.workers: list[Link]

    @contextmanager
    def running(self) -> Iterator[Servers]:
        """Run all of them until the end of the block."""
        with ExitStack() as stack:
            stack.callback(self._redis_up.close)
            self._redis_up.enter_context(self.redis.running())
            s3 = stack.enter_context(s3_server(self._folder / "s3"))
            os.environ.update(s3.environment)  # of the clients
            self.credentials = s3.environment
            s3.client().create_bucket(Bucket=BUCKET)
            names = ["the clients", *(f"worker {number}" for number in range(self._size))]
            self.clients, *self.workers = [self._link(name, stack, s3) for name in names]
            yield self

    @property
    def links(self) -> list[Link]:
        """All links, that of the clients first."""
        return [self.clients, *self.workers]

    def restart_redis(self, pause: Pause) -> None:
        """Kill Redis, keep it away for the pause, and start it again on what it had written."""
        self._signal_redis(signal.SIGKILL)
        self._redis_up.close()
        pause()
        self._redis_up.enter_context(self.redis.running())

    def stop_redis(self, pause: Pause) -> None:
        """Stop Redis's process for the pause: its connections stay open and nothing answers, not even a ping."""
        pid = self._signal_redis(signal.SIGSTOP)
        try:
            pause()
        finally:
            os.kill(pid, signal.SIGCONT)

    def pause_redis(self, seconds: float, pause: Pause) -> None:
        """Let Redis itself hold all commands back for so many seconds, as for a failover; its clock goes on."""
        with self.redis.client() as client:
            client.client_pause(round(seconds * 1000))
        pause()

    def _signal_redis(self, number: signal.Signals) -> int:
        with self.redis.client() as client:
            about: Any = client.info("server")
            pid = int(about["process_id"])
        os.kill(pid, number)
        return pid

    def _link(self, name: str, stack: ExitStack, s3: S3Server) -> Link:
        ports = (self.redis.port, int(s3.endpoint.rpartition(":")[2]))
        redis, storage = (stack.enter_context(Proxy(port, self._rng).running()) for port in ports)
        return Link(name, redis, storage)
