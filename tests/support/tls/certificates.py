"""TLS before a plain server, with certificates that only a CA of the test's own vouches for."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import trustme

from support import PYTHONPATH
from support.processes import free_port, process, wait_until


@dataclass(frozen=True)
class Certificates:
    """A CA, and the PEM files that it made."""

    ca: trustme.CA
    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Certificates:
        """Make a CA whose own certificate lies in the folder."""
        made = cls(trustme.CA(), folder)
        made.ca.cert_pem.write_to_path(made.ca_file)
        return made

    @property
    def ca_file(self) -> Path:
        """What those who trust the CA are given."""
        return self.folder / "ca.pem"

    def issue(self, name: str) -> Path:
        """Write a certificate for a host or an address of mail, with its key, in one file."""
        file = self.folder / f"{name}.pem"
        self.ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(file)
        return file


@contextmanager
def tls_front(
    target: int, certificates: Certificates, *, wants_client: bool = False, name: str = "localhost"
) -> Iterator[int]:
    """Speak TLS on the port that is given, as `name`, and hand on to `target` of this machine until the block ends."""
    port = free_port()
    arguments = [str(port), str(target), certificates.issue(name), *([certificates.ca_file] if wants_client else [])]
    with process([sys.executable, "-m", "support.tls.front", *arguments], environment={"PYTHONPATH": PYTHONPATH}):
        wait_until(lambda: _listens(port), what="the TLS front")
        yield port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@contextmanager
def tap() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on a port and note the first bytes of every connection; nobody is answered."""
    seen: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.settimeout(1)
                    seen.append(connection.recv(1000))

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
