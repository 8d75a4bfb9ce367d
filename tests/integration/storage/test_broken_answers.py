"""Answers of S3 whose connections break: an object is read whole, or the storage is away for the moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from omnifleet.results.download import download
from omnifleet_shared.errors import StorageUnavailable
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage, open_storage

BODY = b"twelve bytes"
ANSWER = b"HTTP/1.1 200 OK\r\nServer: s3\r\nContent-Length: 12\r\nETag: x\r\n\r\n" + BODY
LENGTH_AT = ANSWER.index(b"Content-Length")


@pytest.fixture
def storage_that_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], Storage]]:
    """Storage on a server that sends the same bytes to everybody, and hangs up."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(answer: bytes) -> None:
            with suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        client.recv(65_536)
                        client.sendall(answer)
                        client.shutdown(socket.SHUT_WR)
                        client.recv(65_536)

        def start(answer: bytes) -> Storage:
            threading.Thread(target=serve, args=(answer,), daemon=True).start()
            endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
            return open_storage(FleetSettings(storage="s3://bucket", s3_endpoint=endpoint))

        yield start
        server.shutdown(socket.SHUT_RDWR)


def test_a_whole_answer_is_read(storage_that_answers: Callable[[bytes], Storage]) -> None:
    storage = storage_that_answers(ANSWER)

    assert storage.get(storage.uri("a.wav"), max_bytes=100) == BODY


def test_a_whole_file_is_downloaded_by_its_link(storage_that_answers: Callable[[bytes], Storage]) -> None:
    storage = storage_that_answers(ANSWER)

    assert download(storage.url(storage.uri("a.wav"), 60), 100) == BODY


@pytest.mark.parametrize("arrives", [LENGTH_AT - 1, LENGTH_AT, LENGTH_AT + 9, len(ANSWER) - 13, len(ANSWER) - 1])
def test_an_answer_that_breaks_off_is_no_shorter_object(
    storage_that_answers: Callable[[bytes], Storage], arrives: int
) -> None:
    storage = storage_that_answers(ANSWER[:arrives])

    with pytest.raises(StorageUnavailable):
        storage.get(storage.uri("a.wav"), max_bytes=100)


@pytest.mark.parametrize("arrives", [LENGTH_AT, len(ANSWER) - 13, len(ANSWER) - 1])
def test_a_link_that_breaks_off_is_no_shorter_file(
    storage_that_answers: Callable[[bytes], Storage], arrives: int
) -> None:
    storage = storage_that_answers(ANSWER[:arrives])

    with pytest.raises(StorageUnavailable):
        download(storage.url(storage.uri("a.wav"), 60), 100)


def test_a_size_that_breaks_off_is_no_size(storage_that_answers: Callable[[bytes], Storage]) -> None:
    storage = storage_that_answers(ANSWER[:LENGTH_AT])

    with pytest.raises(StorageUnavailable):
        storage.stat(storage.uri("a.wav"))
