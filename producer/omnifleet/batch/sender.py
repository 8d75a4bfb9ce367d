"""The fleet as a batch sees it, and how one of its requests becomes a job there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from omnifleet_shared.errors import InvalidJob, OmnifleetError
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import Job
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import Storage, StoredObject
from omnifleet_shared.storage.base import ByteStream

from ..client import Client
from ..transport.celery import Transport
from .request import Request

LANE = "batch"


@dataclass(frozen=True)
class Fleet:
    """What a client is made of."""

    settings: FleetSettings
    storage: Storage
    transport: Transport

    @classmethod
    def of(cls, client: Client) -> Fleet:
        """The client's."""
        return cls(*client.parts)

    def send(self, request: Request, job_id: str) -> str:
        """Upload the request's media and send it under that id; what was sent before is not sent again.

        Returns:
            The job's id: another one where a job with the request's own `idempotency_key` stands for it.

        Raises:
            Everything that the client's methods raise.
        """
        with _typed():
            return self._make(request, self.storage, _Under(job_id, self.transport))

    def check(self, request: Request) -> None:
        """Check the request as far as is possible without sending it or reading its media. Raises as `send`."""
        with _typed():
            self._make(request, _Unread(self.storage), _Nowhere())

    def _make(self, request: Request, storage: Storage, transport: object) -> str:
        client = Client(self.settings, storage=storage, transport=cast(Transport, transport))
        return request.in_lane(LANE).make(client).id


class _Under:
    """Submits a job under an id that was chosen before it was made."""

    def __init__(self, job_id: str, transport: Transport) -> None:
        self._job_id = job_id
        self._transport = transport

    def submit(self, job: Job, idempotency_key: str | None = None) -> str:
        return self._transport.submit(job.model_copy(update={"job_id": self._job_id}), idempotency_key)


class _Nowhere:
    """Sends nothing."""

    def submit(self, job: Job, idempotency_key: str | None = None) -> str:
        return job.job_id


class _Unread(Storage):
    """The storage, but local media are neither read nor uploaded: ten thousand clips take minutes to hash."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def describe_input(self, source: BinaryIO) -> Media:
        return Media(uri=self.uri("inputs/unread"))

    def put_input(self, media: Media, source: BinaryIO) -> Media:
        return media

    def uri(self, key: str) -> str:
        return self._storage.uri(key)

    def key(self, uri: str) -> str:
        return self._storage.key(uri)

    def stat(self, uri: str) -> StoredObject | None:
        return self._storage.stat(uri)

    def put(self, key: str, source: BinaryIO, *, content_type: str) -> StoredObject:
        return self._storage.put(key, source, content_type=content_type)

    def open(self, uri: str, *, start: int = 0) -> ByteStream:
        return self._storage.open(uri, start=start)

    def delete(self, uri: str) -> None:
        self._storage.delete(uri)

    def url(self, uri: str, lifetime: int) -> str:
        return self._storage.url(uri, lifetime)


@contextmanager
def _typed() -> Iterator[None]:
    """Whatever an item's values do to the call, it is the item's error: one bad item must not end the others."""
    try:
        yield
    except OmnifleetError:
        raise
    except (TypeError, ValueError, AttributeError, OSError) as error:  # OSError: a file that goes away while it is read
        details: dict[str, Any] = {"type": type(error).__name__}
        raise InvalidJob(f"the call cannot be made: {error}", "jobs", "Check its arguments", details) from error
