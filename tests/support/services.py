"""Real servers for tests: Redis, and an S3 API (MinIO, or moto where MinIO is not at hand)."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest
from omnifleet_shared.errors import OmnifleetError
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.redis_client import typed_redis_errors
from omnifleet_shared.schema.job_state import STATE_KEY, failure_record, queued_record

from support.processes import RedisServer, free_port, process, wait_until

__all__ = ["Proxy", "RedisServer", "S3Server", "free_port", "process", "wait_until"]


def missing(what: str, remedy: str) -> NoReturn:
    """A test that cannot run without it fails in CI, and is skipped at a desk."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed: {remedy}")
    pytest.skip(f"{what} is not installed: {remedy}")


def mark_queued(states: JobStates, job_id: str) -> None:
    """Write what a submission writes of a job's state."""
    _write_state(states, job_id, queued_record(job_id))


def mark_failed(states: JobStates, job_id: str, error: OmnifleetError) -> None:
    """Write what a worker writes of a job that failed."""
    _write_state(states, job_id, failure_record(job_id, error))


def _write_state(states: JobStates, job_id: str, record: str) -> None:
    key = STATE_KEY.format(job_id=job_id)
    with typed_redis_errors(), states._redis.pipeline() as pipe:
        pipe.set(key, record, ex=states._lifetime)
        pipe.publish(key, record)
        pipe.execute()


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    access_key: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )


def s3_server_name() -> str:
    """What `s3_server` starts here, or `given`."""
    if os.environ.get("OMNIFLEET_TEST_S3_ENDPOINT"):
        return "given"
    return "minio" if shutil.which("minio") else "moto"


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """The endpoint in OMNIFLEET_TEST_S3_ENDPOINT, else MinIO from the PATH, else moto's server."""
    if endpoint := os.environ.get("OMNIFLEET_TEST_S3_ENDPOINT"):
        yield S3Server(endpoint, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        return
    server = S3Server(f"http://127.0.0.1:{free_port()}", "omnifleet-test", "omnifleet-test-secret")
    minio = shutil.which("minio")
    if minio:
        address, console = server.endpoint.removeprefix("http://"), f"127.0.0.1:{free_port()}"
        command = [minio, "server", str(folder), "--quiet", "--address", address, "--console-address", console]
    else:
        port = server.endpoint.rpartition(":")[2]
        moto = shutil.which("moto_server")
        assert moto, "neither minio nor moto_server is installed: make test installs moto"
        command = [moto, "--host", "127.0.0.1", "--port", port]
    env = {"MINIO_ROOT_USER": server.access_key, "MINIO_ROOT_PASSWORD": server.secret_key}
    with process(command, environment=env):
        wait_until(lambda: _lists_buckets(server), what=command[0])
        yield server


def _lists_buckets(server: S3Server) -> bool:
    try:
        server.client().list_buckets()
    except Exception:  # anything until it is up
        return False
    return True


class Proxy:
    """A TCP proxy. Cut, it breaks connections and refuses new ones until healed; silenced, it leaves them open."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self.target = target
        self._open: set[socket.socket] = set()
        self._silent: set[socket.socket] = set()
        self._listener: socket.socket | None = None

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        self.heal()
        try:
            yield self
        finally:
            self.cut()

    def heal(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        if self._listener is not None:
            _shut(self._listener)
            self._listener.close()
            self._listener = None
        for end in list(self._open):
            _shut(end)  # whoever carries it closes it

    def silence(self) -> None:
        """Carry nothing more over the connections that are open, and leave them open; new ones are as good as ever."""
        self._silent |= self._open

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        # A target that is not there breaks the connection, not the proxy.
        with near, suppress(OSError), socket.create_connection(("127.0.0.1", self.target)) as far:
            ends = {near, far}
            self._open.update(ends)
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()
            self._open.difference_update(ends)
            self._silent.difference_update(ends)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._silent:
                    sink.sendall(data)
        _shut(source)
        _shut(sink)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
