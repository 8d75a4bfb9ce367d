"""A real gateway process, and callers of it."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omnifleet.gateway.access.api_key import make_key
from omnifleet.gateway.access.key_store import KeyStore
from omnifleet_shared.schema.results import JobStatus
from omnifleet_shared.settings import FleetSettings

from support import processes, scripted_fleet

WAIT = 240.0
NODE_TEST = Path(__file__).parent / "openai_node"
"""Programs for OpenAI's client for Node."""
Headers = Mapping[str, str] | None
Body = bytes | Iterator[bytes] | None
"""Chunks are sent as such, with no length announced."""
LONG = 1000
"""Steps of a job that is not over before a test is, if nobody stops it."""


@dataclass(frozen=True)
class Answer:
    """An answer that was read to its end."""

    status: int
    headers: Mapping[str, str]
    """Names in small letters."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]  # type: ignore[no-any-return]


@dataclass
class Gateway:
    """A running gateway and the key that it is asked with."""

    port: int
    pages_port: int
    process: processes.Process
    key: str | None = None
    _headers: dict[str, str] = field(default_factory=dict)

    def with_key(self, key: str | None) -> Gateway:
        """The same gateway, as another caller sees it."""
        return Gateway(self.port, self.pages_port, self.process, key)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: Headers = None,
    ) -> Answer:
        """Ask, and read the answer to its end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            connection.request(
                method, path, body, self._all(headers), encode_chunked=not isinstance(body, bytes | None)
            )
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Headers = None) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, path: str, record: object, headers: Headers = None) -> Answer:
        return self.ask(
            "POST", path, json.dumps(record).encode(), {"Content-Type": "application/json", **(headers or {})}
        )

    def post_form(self, path: str, *parts: Part, headers: Headers = None) -> Answer:
        boundary = uuid.uuid4().hex
        body = b"".join(part.encode(boundary) for part in parts) + f"--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        return self.ask("POST", path, body, {**kind, **(headers or {})})

    def send(self, **fields: Any) -> str:
        """Send a job; gives its id."""
        answer = self.post("/v1/jobs", fields)
        assert answer.status == 202, answer.body
        return str(answer.json["id"])

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job once it has its outcome."""
        until = time.monotonic() + WAIT
        while True:
            answer = self.get(f"/v1/jobs/{job_id}?wait=60")
            assert answer.status == 200, answer.body
            if JobStatus(answer.json["status"]).is_final or time.monotonic() > until:
                return answer.json  # type: ignore[no-any-return]

    @contextmanager
    def opened(self, method: str, path: str, headers: Headers = None, body: bytes = b"") -> Iterator[Opened]:
        """A request on a connection that the test may break: it is broken at the end of the block."""
        lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
        lines += [f"{name}: {value}" for name, value in self._all(headers).items()]
        lines += [f"Content-Length: {len(body)}"] if body else []
        with socket.create_connection(("127.0.0.1", self.port), timeout=WAIT) as caller:
            caller.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            yield Opened(caller)

    def metrics(self) -> scripted_fleet.Metrics:
        return scripted_fleet.scrape(self.pages_port)

    def lines(self) -> list[dict[str, Any]]:
        """Its log."""
        found = self.process.log.read_text().splitlines()
        return [json.loads(line) for line in found if line.startswith("{") and line.endswith("}")]

    def faults(self) -> list[dict[str, Any]]:
        """Lines of its log that are errors of its own."""
        return [line for line in self.lines() if line["level"] in ("ERROR", "CRITICAL") or "exc_info" in line]

    def _all(self, headers: Headers) -> dict[str, str]:
        given = {} if self.key is None else {"Authorization": f"Bearer {self.key}"}
        return {**given, **(headers or {})}


@dataclass(frozen=True)
class Part:
    """A part of a form; a file where it has a file's name."""

    name: str
    data: bytes
    filename: str | None = None

    def encode(self, boundary: str) -> bytes:
        file = "" if self.filename is None else f'; filename="{self.filename}"'
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{self.name}"{file}\r\n\r\n'
        return head.encode() + self.data + b"\r\n"


@dataclass
class Opened:
    """A request whose answer may be read as it comes."""

    caller: socket.socket
    _unread: bytes = b""

    def read_until(self, text: str) -> str:
        """What came up to the text, the text included; what came at all where the connection ends before."""
        while (wanted := text.encode()) not in self._unread:
            more = self.caller.recv(65_536)
            if not more:
                found, self._unread = self._unread, b""
                return found.decode()
            self._unread += more
        found, _, self._unread = self._unread.partition(wanted)
        return (found + wanted).decode()

    def read_some(self, size: int) -> None:
        """So many bytes, whatever they are."""
        while len(self._unread) < size:
            more = self.caller.recv(65_536)
            assert more, "the answer ended"
            self._unread += more
        self._unread = self._unread[size:]

    def read_to_end(self) -> str:
        """All that comes until the other side closes."""
        return self.read_until("\0 never sent")


@contextmanager
def gateway(environment: Mapping[str, str], log: Path, *arguments: str, key: str | None = None) -> Iterator[Gateway]:
    """Run `omnifleet gateway`, ready."""
    port, pages = processes.free_port(), processes.free_port()
    command = [sys.executable, "-W", "error", "-m", "omnifleet", "gateway", "--port", str(port), *arguments]
    with processes.process(command, log, {**environment, "OMNIFLEET_HTTP_PORT": str(pages)}) as running:
        running.wait_until_ready()
        started = Gateway(port, pages, running, key)
        # It says so before it listens, on a port that is its own by then.
        processes.wait_until(lambda: _answers(started), WAIT, f"an answer, see {log}")
        yield started


def _answers(started: Gateway) -> bool:
    try:
        return started.get("/livez").status == 200
    except OSError:
        return False


def events(text: str) -> list[tuple[str, str, Any]]:
    """Name, id and data of each event of a stream."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "event" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


def new_key(redis_url: str, tenant: str = "acme", rate: float = 100_000, quota: int | None = None) -> str:
    """Make an API key in the Redis of a fleet; gives its text."""
    store = KeyStore.connect(FleetSettings(redis_url=redis_url))
    key, text = make_key(tenant, rate, quota)
    store.add(key)
    store.close()
    return text
