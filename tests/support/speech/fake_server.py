"""A fake speech server of two contracts: Fish's `/v1/tts`, and OpenAI's `/v1/audio/speech` as vLLM-Omni extends it.

It says tones that the text, the seed and the voice decide. It fails as it is told.
"""

from __future__ import annotations

import base64
import io
import json
import select
import ssl
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

SAMPLES_A_LETTER = 400


@dataclass
class FakeSpeechServer:
    """What the server does, and what it was asked.

    Attributes:
        rate: in Hz, of what it says.
        key: that it asks for.
        statuses: with which it answers the next requests, one each.
        cut: whether it closes the connection in the middle of its answers.
        silent: whether it answers nothing until `speak` is set.
        stuck: whether it is silent likewise in the middle of its answers.
        silences: requests in which it was silent.
        gone: those whose client hung up.
        certificate: PEM file of a certificate and its key; it speaks TLS with one.
        asked: the bodies of all requests, in order.
    """

    rate: int = 44_100
    key: str | None = None
    statuses: list[int] = field(default_factory=list)
    cut: bool = False
    silent: bool = False
    stuck: bool = False
    silences: int = 0
    gone: int = 0
    certificate: Path | None = None
    speak: threading.Event = field(default_factory=threading.Event)
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def running(self, port: int = 0) -> Iterator[FakeSpeechServer]:
        """Serve on the port, or on one that is free."""
        handler = type("Handler", (_Handler,), {"fake": self})
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client that hangs up is no news
        if self.certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"http{'s' if self.certificate else ''}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.speak.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def say(self, text: str, seed: int, voice: bytes = b"") -> bytes:
        """The samples, 16 bits, of a text."""
        random = np.random.default_rng([seed, *text.encode(), *voice[-64:]])
        count = SAMPLES_A_LETTER * len(text)
        tone = np.sin(2 * np.pi * random.uniform(100, 300) * np.arange(count) / self.rate)
        return (tone * 20_000).astype("<i2").tobytes()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeSpeechServer

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self._is_refused():
            return
        known = self.path in ("/v1/health", "/v1/models")
        self._answer(200 if known else 404, b'{"status": "ok"}', "application/json")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self._is_refused():
            return
        if self.headers.get("Content-Type") != "application/json":
            self._fail(415, "Unsupported Media Type")
            return
        asked = json.loads(body)
        self.fake.asked.append(asked)
        if self.fake.statuses and (status := self.fake.statuses.pop(0)) != 200:
            self._fail(status, "told to fail")
            return
        try:
            self._speak(asked)
        except ConnectionError:
            self.fake.gone += 1
            raise

    def _speak(self, asked: dict[str, Any]) -> None:
        if self.fake.silent:
            self._stay_silent()
        if self.path == "/v1/tts":
            self._fish(asked)
        elif self.path == "/v1/audio/speech":
            self._openai(asked)
        else:
            self._fail(404, "Not Found")

    def _fish(self, asked: dict[str, Any]) -> None:
        if not isinstance(asked.get("text"), str) or asked.get("format") != "wav":
            self._fail(422, "text: field required")
            return
        references = asked.get("references", [])
        voice = b"".join(base64.b64decode(one["audio"]) for one in references)
        pcm = self.fake.say(asked["text"], asked["seed"], voice)
        if not asked.get("streaming"):
            self._answer(200, self._wav(pcm), "audio/wav")
            return
        self.send_response(200)
        self.send_header("Content-Type", "audio/wav")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (self._wav(b""), *(pcm[start : start + 8192] for start in range(0, len(pcm), 8192))):
            self.wfile.write(f"{len(part):X}\r\n".encode() + part + b"\r\n")
            if self.fake.cut:
                self._hang_up()
                return
            if self.fake.stuck:
                self._stay_silent()
        self.wfile.write(b"0\r\n\r\n")

    def _openai(self, asked: dict[str, Any]) -> None:
        if not isinstance(asked.get("input"), str) or asked.get("response_format") != "wav":
            self._fail(400, "input is needed")
            return
        voice = base64.b64decode(asked.get("ref_audio", ",").partition(",")[2])
        data = self._wav(self.fake.say(asked["input"], asked["seed"], voice))
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        if self.fake.cut:
            self._hang_up()
            return
        if self.fake.stuck:
            self._stay_silent()
        self.wfile.write(data[len(data) // 2 :])

    def _wav(self, pcm: bytes) -> bytes:
        file = io.BytesIO()
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(self.fake.rate)
            writer.writeframes(pcm)
        return file.getvalue()

    def _is_refused(self) -> bool:
        key = self.fake.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return False
        self._fail(401, "Invalid token")
        return True

    def _fail(self, status: int, message: str) -> None:
        body = {"statusCode": status, "message": message, "error": message}
        self._answer(status, json.dumps(body).encode(), "application/json")

    def _answer(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stay_silent(self) -> None:
        self.fake.silences += 1
        while not self.fake.speak.wait(0.01):
            if select.select([self.connection], [], [], 0)[0] and not self.connection.recv(1):
                raise ConnectionAbortedError("nobody listens any more")

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
