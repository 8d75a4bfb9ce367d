"""Whatever bytes come in, the gateway answers them as the caller's fault, lives on, and logs no error of its own."""

from __future__ import annotations

import socket
import string
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from support.gateway.process import WAIT, Gateway

FEW = settings(max_examples=40, deadline=None)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
HEADERS = st.sampled_from(
    ["Idempotency-Key", "Last-Event-ID", "Range", "If-Range", "traceparent", "tracestate", "baggage", "X-Request-ID"]
)
PATHS = st.sampled_from(
    ["/v1/jobs", "/v1/jobs/nobody", "/v1/jobs/nobody/events", "/v1/jobs/nobody/audio", "/v1/models", "/v1/audio/speech"]
)
NAMES = st.sampled_from(["job", "audio", "file", "model", "ref", "x"]) | st.text(string.printable, max_size=10)


def lives(gateway: Gateway) -> bool:
    return gateway.process.process.poll() is None and gateway.get("/livez").status == 200


@FEW
@given(
    st.binary(min_size=1, max_size=400), st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"POST /v1/jobs HTTP/1.1\r\n"])
)
def test_raw_bytes(omnigate: Gateway, data: bytes, head: bytes) -> None:
    with socket.create_connection(("127.0.0.1", omnigate.port), timeout=WAIT) as caller:
        caller.sendall(head + data + b"\r\n\r\n")
        caller.shutdown(socket.SHUT_WR)
        answer = caller.recv(65_536)

    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer
    assert lives(omnigate)


@FEW
@given(st.sampled_from(["GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS"]), PATHS, st.dictionaries(HEADERS, PRINTABLE))
def test_headers(omnigate: Gateway, method: str, path: str, headers: dict[str, str]) -> None:
    sent = {name: value.encode("latin-1").decode("latin-1") for name, value in headers.items()}

    answer = omnigate.ask(method, path, None, sent)

    assert answer.status < 500, answer.body
    assert not {name for name in answer.headers if name in {"set-cookie", "location"}}


@FEW
@given(st.text(max_size=80))
def test_paths(omnigate: Gateway, path: str) -> None:
    for prefix in ("/v1/jobs/", "/v1/models/"):
        answer = omnigate.get(prefix + quote(path.encode("utf-8", "surrogatepass"), safe=""))

        assert answer.status in (200, 404, 405), answer.body


@FEW
@given(st.text(string.printable, max_size=100))
def test_keys(omnigate: Gateway, key: str) -> None:
    sent = "".join(char for char in key if char not in "\r\n\v\f")

    assert omnigate.with_key(sent).get("/v1/models").status == 401


@FEW
@given(st.lists(st.tuples(NAMES, st.none() | NAMES, st.binary(max_size=200)), max_size=5), st.booleans())
def test_forms(omnigate: Gateway, parts: list[tuple[str, str | None, bytes]], whole: bool) -> None:
    body = b""
    for name, filename, data in parts:
        file = b"" if filename is None else b'; filename="' + filename.encode() + b'"'
        body += b'--cut\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + file + b"\r\n\r\n"
        body += data + b"\r\n"
    body += b"--cut--\r\n" if whole else b""

    for path in ("/v1/jobs", "/v1/uploads", "/v1/audio/transcriptions"):
        answer = omnigate.ask("POST", path, body, {"Content-Type": "multipart/form-data; boundary=cut"})

        assert answer.status in (201, 202, 400, 422), answer.body
    assert lives(omnigate)


@FEW
@given(st.binary(max_size=300), st.sampled_from(["/v1/jobs", "/v1/audio/speech"]))
def test_bodies(omnigate: Gateway, body: bytes, path: str) -> None:
    answer = omnigate.ask("POST", path, body, {"Content-Type": "application/json"})

    assert answer.status in (400, 422), answer.body
