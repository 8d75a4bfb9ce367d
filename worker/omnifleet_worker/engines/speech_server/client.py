"""Asks a speech server over HTTP: with timeouts, a few tries, and typed errors."""

from __future__ import annotations

import json
from contextlib import suppress
from http.client import HTTPException
from typing import Any, cast
from urllib.parse import urlsplit

import urllib3
from omnifleet_shared.errors import InvalidJob, InvalidSetting, ModelServerUnavailable
from omnifleet_shared.settings import MEBIBYTE
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from ...settings import WorkerSettings
from .exchange import Exchange

CONNECT_SECONDS = 5.0
HEALTH_SECONDS = 5.0
"""Longest wait for an answer about the server's health."""
WAITS = (0.2, 1.0, 3.0)
"""Seconds before each further try of a server that did not begin to answer, or is busy."""
MAX_BYTES = 512 * MEBIBYTE
"""Of an answer: an hour and a half of speech at 48 kHz."""
OF_THE_JOB = frozenset({400, 413, 422})
"""Statuses with which a server refuses what it is asked."""
OF_THE_KEY = frozenset({401, 403})


class _Busy(ModelServerUnavailable):
    """Another try may do."""


class SpeechServer:
    """One server. Thread-safe.

    Args:
        url: its address, without a path of the API.
        key: bearer token; None where it asks for none.
        seconds: that it may stay silent while it answers.
    """

    def __init__(self, url: str, key: str | None, seconds: float) -> None:
        self.url = url.rstrip("/")
        self._headers = {"User-Agent": "omnifleet"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self._seconds = seconds
        self._pool = urllib3.PoolManager(timeout=HEALTH_SECONDS, retries=False)

    @classmethod
    def of_settings(cls, settings: WorkerSettings) -> SpeechServer:
        """Open the server of the settings; nothing is asked yet. Raises InvalidSetting where they name none."""
        url = settings.server_url or ""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            problem = "the engine needs the address of its speech server" if not url else f"{url!r} is no address"
            raise InvalidSetting(problem, "OMNIFLEET_SERVER_URL", "Set it, as in http://localhost:8000")
        key = settings.server_key.get_secret_value() if settings.server_key is not None else None
        return cls(url, key, settings.server_timeout)

    def why_unwell(self, path: str) -> str | None:
        """Ask for the server's health; gives what is wrong with it, or with the key."""
        try:
            answer = self._pool.request("GET", self.url + path, headers=self._headers)
        except HTTPError as error:
            return f"its speech server does not answer: {_reason(error)}"
        if answer.status in OF_THE_KEY:
            return f"its speech server refuses the key of OMNIFLEET_SERVER_KEY with {answer.status}"
        return None if answer.status < 400 else f"its speech server is unwell: it answers {answer.status} to {path}"

    def post(self, path: str, body: dict[str, Any], exchange: Exchange) -> bytes:
        """Post a request and read all of its answer.

        Args:
            path: of the API.
            body: sent as JSON.
            exchange: ends it when nobody wants the answer any more; what is raised then is of no use.

        Raises:
            InvalidJob: the server refuses what it is asked.
            ModelServerUnavailable: it does not answer, not to the end, or refuses the worker.
        """
        for wait in WAITS:
            try:
                return self._post(path, body, exchange)
            except _Busy:
                exchange.wait(wait)
        try:
            return self._post(path, body, exchange)
        except _Busy as error:
            raise ModelServerUnavailable(*error.args) from error.__cause__

    def close(self) -> None:
        """Close the connections."""
        self._pool.clear()

    def _post(self, path: str, body: dict[str, Any], exchange: Exchange) -> bytes:
        connection, target = self._connection(path)
        headers = self._headers | {"Content-Type": "application/json"}
        try:
            with exchange.connected(connection):
                connection.request("POST", target, json.dumps(body).encode(), headers, preload_content=False)
                connection.timeout = self._seconds
                with connection.getresponse() as answer:
                    return _read_whole(answer)
        except TimeoutError as error:
            raise _unavailable(f"it was silent for too long: {_reason(error)}") from error
        except (HTTPError, HTTPException, OSError) as error:
            raise _Busy(f"the speech server does not answer: {_reason(error)}") from error

    def _connection(self, path: str) -> tuple[HTTPConnection, str]:
        """A new connection, as to close it must not end another text's answer, and what is asked for on it."""
        url = parse_url(self.url + path)
        kind = HTTPSConnection if url.scheme == "https" else HTTPConnection
        assert url.host is not None, "the settings were checked"
        return kind(url.host.strip("[]"), url.port, timeout=min(CONNECT_SECONDS, self._seconds)), url.request_uri


def _read_whole(answer: urllib3.BaseHTTPResponse) -> bytes:
    try:
        return _read(answer)
    except HTTPError as error:
        raise _unavailable(f"its answer ended early: {_reason(error)}") from error


def _read(answer: urllib3.BaseHTTPResponse) -> bytes:
    read = bytearray()
    for chunk in answer.stream(2**16):
        read += chunk
        if len(read) > MAX_BYTES:
            raise _unavailable(f"its answer has more than {MAX_BYTES} bytes")
    if answer.status < 300:
        return bytes(read)
    said = _message(bytes(read))
    if answer.status in OF_THE_JOB:
        raise InvalidJob(f"the speech server refuses it: {said or answer.status}", None, "Change the request")
    if answer.status in OF_THE_KEY:
        raise _unavailable(f"it refuses the worker's key with {answer.status}")
    problem = f"the speech server answered {answer.status}" + (f": {said}" if said else "")
    busy = answer.status == 429 or answer.status >= 500
    raise (_Busy if busy else ModelServerUnavailable)(problem, None, "See to the server", {"status": answer.status})


def _message(body: bytes) -> str:
    """The words of an error: `message` at the top (Fish) or in `error` (OpenAI), or FastAPI's `detail`."""
    with suppress(ValueError):
        value: Any = json.loads(body)
        if isinstance(value, dict):
            record = cast(dict[str, Any], value)
            inner: Any = record.get("error")
            inner = cast(dict[str, Any], inner) if isinstance(inner, dict) else {}
            said = record.get("message") or inner.get("message") or record.get("detail")
            return "" if said is None else str(said)[:300]
    return ""


def _unavailable(problem: str) -> ModelServerUnavailable:
    return ModelServerUnavailable(f"the speech server failed: {problem}", None, "See to the server")


def _reason(error: Exception) -> str:
    """Without the address: errors reach whoever sent the job."""
    return type(error).__name__
