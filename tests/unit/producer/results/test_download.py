"""Downloads by link, whose server is verified by the certificates that S3 is verified with."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from omnifleet.results.download import download
from omnifleet_shared.errors import InvalidSetting, StorageUnavailable
from support.tls.certificates import Certificates, tls_front

BODY = b"a recording"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every request with the same file."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates.create(tmp_path)


@pytest.fixture
def link(certificates: Certificates) -> Iterator[str]:
    """A link to a server whose certificate only the test's own CA vouches for."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tls_front(server.server_port, certificates) as port:
            yield f"https://localhost:{port}/k"
        server.shutdown()


def test_a_link_is_verified_with_the_bundle_of_s3(
    link: str, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificates.ca_file))

    assert download(link, 100) == BODY


def test_without_it_nobody_else_vouches_for_the_server(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)

    with pytest.raises(StorageUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        download(link, 100)


def test_a_bundle_that_is_not_there_is_named(link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere.pem")

    with pytest.raises(InvalidSetting, match="AWS_CA_BUNDLE"):
        download(link, 100)
