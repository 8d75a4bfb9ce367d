"""Redis and S3, and a proxy between each of them and the workers; clients reach both directly."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from omnifleet_shared.settings import FleetSettings
from support.services import Proxy, RedisServer, S3Server, free_port, s3_server

BUCKET = "chaos"
LEASE = 2.0
"""Seconds of a lease: short, so that jobs of killed workers come back soon."""
DURABLE = ("--appendfsync", "always")
"""What Redis acknowledged is on the disk, and outlives its own kill -9."""


class Servers:
    """Redis and S3 of one run, with a proxy before each; use `running`.

    Args:
        folder: for their files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "redis").mkdir()
        self.redis = RedisServer(free_port(), folder / "redis", DURABLE)
        self._redis_up = ExitStack()
        self._s3: S3Server
        self.redis_proxy: Proxy
        self.s3_proxy: Proxy

    @contextmanager
    def running(self) -> Iterator[Servers]:
        """Run all of them until the end of the block."""
        with ExitStack() as stack:
            stack.callback(self._redis_up.close)
            self._redis_up.enter_context(self.redis.running())
            self._s3 = stack.enter_context(s3_server(self._folder / "s3"))
            os.environ.update(self._s3.environment)  # of the clients; workers inherit it
            self._s3.client().create_bucket(Bucket=BUCKET)
            self.redis_proxy = stack.enter_context(Proxy(self.redis.port).running())
            self.s3_proxy = stack.enter_context(Proxy(int(self._s3.endpoint.rpartition(":")[2])).running())
            yield self

    @property
    def client_settings(self) -> FleetSettings:
        """Settings of clients, which reach both servers directly."""
        return self._settings(self.redis.port, self._s3.endpoint)

    @property
    def worker_settings(self) -> FleetSettings:
        """Settings of workers, which reach both servers through the proxies."""
        return self._settings(self.redis_proxy.port, f"http://127.0.0.1:{self.s3_proxy.port}")

    def restart_redis(self, pause: Callable[[], object]) -> None:
        """Kill Redis, keep it away for the pause, and start it again on what it had written."""
        os.kill(int(self.redis.client().info("server")["process_id"]), signal.SIGKILL)
        self._redis_up.close()
        pause()
        self._redis_up.enter_context(self.redis.running())

    @staticmethod
    def _settings(redis_port: int, s3_endpoint: str) -> FleetSettings:
        redis_url = f"redis://127.0.0.1:{redis_port}/0"
        return FleetSettings(redis_url=redis_url, storage=f"s3://{BUCKET}", s3_endpoint=s3_endpoint, lease=LEASE)
