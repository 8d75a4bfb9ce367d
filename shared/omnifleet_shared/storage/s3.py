"""Any S3 API (AWS, MinIO, Ceph…) as object storage, through boto3."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Self
from urllib.parse import unquote, urlsplit

import boto3.session
from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from ..errors import ForeignURI, InvalidSetting, MediaNotFound, OmnifleetError, StorageRefused, StorageUnavailable
from ..per_process import PerProcess
from ..settings import MEBIBYTE, FleetSettings
from .base import ByteStream, ListedObject, Storage, StoredObject

MULTIPART_ABOVE = 64 * MEBIBYTE
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""Longest silence of the storage, after which the request is sent again over another connection: nothing else tells of
one that is half-open, and a job waits for it. An answer takes a second or two where the storage is not overloaded."""
COPY_PART = 128 * MEBIBYTE
"""Bytes that one request copies inside the storage: S3 allows 5 GiB, but is silent meanwhile."""
MOST_DELETED = 1000
"""Objects that one request deletes at the most; S3's own limit."""
KEPT_HEADERS = ("ContentType", "ContentDisposition", "ContentEncoding", "CacheControl", "Metadata", "StorageClass")
"""What an object has besides its bytes, which a copy of it would lose."""
DEFAULT_REGION = "us-east-1"
TOKEN_LIFETIME = 3600.0
"""Seconds that links of a session token last where nothing tells when it expires: the default of AWS for tokens."""
FORBIDDEN = "403"
"""Code of a HEAD that is refused, whatever the reason."""
ABSENT = {"404", "NoSuchKey", "NotFound"}
BUSY = {"SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException", "InternalError"}


class _Clients:
    """boto3's clients of one process: a forked one would share their connections, and read its parent's answers."""

    def __init__(self, settings: FleetSettings) -> None:
        self.session = session = boto3.session.Session()
        self.client = self.link_client = _client(session, settings, "OMNIFLEET_S3_ENDPOINT", settings.s3_endpoint)
        if (public := settings.s3_public_endpoint) is not None:
            self.link_client = _client(session, settings, "OMNIFLEET_S3_PUBLIC_ENDPOINT", public)


class S3Storage(Storage):
    """Stores objects as `s3://bucket/prefix/key`; thread-safe. boto3 finds credentials (`AWS_*`, profile, role)."""

    def __init__(self, settings: FleetSettings) -> None:
        place = urlsplit(settings.storage)
        self.bucket = place.netloc
        self.prefix = f"{place.path.strip('/')}/" if place.path.strip("/") else ""
        self._clients = PerProcess(lambda: _Clients(settings))
        self._clients.get()  # an endpoint that is none is refused now

    @property
    def _client(self) -> Any:
        return self._clients.get().client

    def uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def key(self, uri: str) -> str:
        home = self.uri("")
        key = uri.removeprefix(home)
        decoded = unquote(key)
        if not uri.startswith(home) or not key or "?" in key or "#" in key or ".." in decoded.split("/"):
            raise ForeignURI(f"{uri[:200]!r} is outside the storage {home}", "uri", "Upload the file, or put it there")
        return key

    def stat(self, uri: str) -> StoredObject | None:
        head = self._head(self.key(uri))
        return None if head is None else StoredObject(uri=uri, bytes=int(head["ContentLength"]), age=_age(head))

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        start = source.tell()
        headers = {"ContentType": content_type}
        if filename is not None:
            # Not `attachment`: a link to a recording plays it.
            headers["ContentDisposition"] = f'inline; filename="{filename}"'
        with _typed_errors():
            self._client.upload_fileobj(
                _Unclosed(source),
                self.bucket,
                self.prefix + key,
                ExtraArgs=headers,
                Config=TransferConfig(multipart_threshold=MULTIPART_ABOVE, multipart_chunksize=16 * MEBIBYTE),
            )
        return StoredObject(uri=self.uri(key), bytes=source.tell() - start)

    def open(self, uri: str, *, start: int = 0) -> ByteStream:
        key = self.key(uri)
        part = {"Range": f"bytes={start}-"} if start else {}  # an empty object has no range at all
        with _typed_errors(uri):
            answer = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key, **part)
            return _TypedStream(_unbroken(answer)["Body"])

    def delete(self, uri: str) -> None:
        key = self.key(uri)
        with _typed_errors():
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def delete_many(self, uris: Sequence[str]) -> None:
        keys = [{"Key": self.prefix + self.key(uri)} for uri in uris]
        with _typed_errors():
            for start in range(0, len(keys), MOST_DELETED):
                batch = {"Objects": keys[start : start + MOST_DELETED], "Quiet": True}
                answer = self._client.delete_objects(Bucket=self.bucket, Delete=batch)
                # It answers 200 however many it refused.
                for refused in answer.get("Errors", ()):
                    raise ClientError({"Error": refused}, "DeleteObjects")

    def touch(self, uri: str) -> bool:
        # In parts, however small: older MinIO takes a plain copy of an object onto itself for a change of its headers
        # alone, and leaves its time as it was.
        key = self.key(uri)
        if (head := self._head(key)) is None:
            return False
        source = {"Bucket": self.bucket, "Key": self.prefix + key}
        parts = TransferConfig(multipart_threshold=1, multipart_chunksize=COPY_PART)
        kept = {name: head[name] for name in KEPT_HEADERS if head.get(name)}
        try:
            self._client.copy(source, source["Bucket"], source["Key"], ExtraArgs=kept, Config=parts)
        except ClientError as error:
            if _code(error) in ABSENT:
                return False
            raise _typed(error) from error
        except BotoCoreError as error:
            raise _typed(error) from error
        return True

    def list(self, prefix: str) -> Iterator[ListedObject]:
        pages = self._client.get_paginator("list_objects_v2")
        with _typed_errors():
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix):
                for found in page.get("Contents", ()):
                    uri = self.uri(found["Key"].removeprefix(self.prefix))
                    yield ListedObject(uri=uri, bytes=found["Size"], modified=found["LastModified"].timestamp())

    def clock(self) -> float | None:
        with _typed_errors():
            try:
                answer = self._client.head_bucket(Bucket=self.bucket)
            except ClientError as error:  # a refusal shows the time as well
                answer = error.response
        return _date(answer)

    def url(self, uri: str, lifetime: int) -> str:
        params = {"Bucket": self.bucket, "Key": self.prefix + self.key(uri)}
        with _typed_errors():
            lasts = int(min(lifetime, self._credentials_last()))
            client = self._clients.get().link_client
            return str(client.generate_presigned_url("get_object", Params=params, ExpiresIn=lasts))

    def _head(self, key: str) -> Mapping[str, Any] | None:
        try:
            return _unbroken(self._client.head_object(Bucket=self.bucket, Key=self.prefix + key))
        except ClientError as error:
            if _code(error) in ABSENT:
                return None
            if _code(error) == FORBIDDEN and self._is_hidden(key):
                return None
            raise _typed(error) from error
        except BotoCoreError as error:
            raise _typed(error) from error

    def _is_hidden(self, key: str) -> bool:
        """Whether a forbidden HEAD says no more than that nothing can be seen there.

        To who may not list the bucket, S3 forbids what is absent. HEAD has no body that tells this from credentials
        which are wrong; GET has.
        """
        try:
            self._client.get_object(Bucket=self.bucket, Key=self.prefix + key, Range="bytes=0-0")["Body"].close()
        except ClientError as error:
            return _code(error) in {*ABSENT, "AccessDenied"}
        return False

    def _credentials_last(self) -> float:
        """Seconds for which the credentials are good, and so the links that they sign."""
        credentials: Any = self._clients.get().session.get_credentials()
        if credentials is None:
            return math.inf
        signed = credentials.get_frozen_credentials()  # refreshes them where they can be
        # botocore has no public name for it.
        expires = getattr(credentials, "_expiry_time", None)
        if expires is not None:
            return max(1.0, float((expires - datetime.now(UTC)).total_seconds()))
        return TOKEN_LIFETIME if signed.token else math.inf


def _client(session: boto3.session.Session, settings: FleetSettings, variable: str, endpoint: str | None) -> Any:
    region = settings.s3_region or os.environ.get("AWS_REGION") or session.region_name or DEFAULT_REGION
    config = Config(
        signature_version="s3v4",
        connect_timeout=CONNECT_SECONDS,
        read_timeout=ANSWER_SECONDS,
        max_pool_connections=64,
        retries={"mode": "standard", "max_attempts": 3},
        s3={"addressing_style": "path" if settings.s3_path_style else "virtual"},
    )
    try:
        return session.client(  # pyright: ignore[reportUnknownMemberType]
            "s3", endpoint_url=endpoint, region_name=region, config=config
        )
    except ValueError as error:
        remedy = "Use http://host:port or https://host"
        raise InvalidSetting(f"{endpoint!r} is no URL", variable, remedy) from error


def _unbroken(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the answer back, unless its connection broke among the headers: http.client takes what came for all.

    Without a length nobody would miss the body, and an object would look empty.
    """
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    if "content-length" not in headers and "transfer-encoding" not in headers:
        raise StorageUnavailable("the object storage broke off its answer", "storage")
    return answer


class _Unclosed:
    """A file without its `close`: boto3 closes what it uploads, and the file is the caller's."""

    def __init__(self, source: BinaryIO) -> None:
        self.read = source.read
        self.seek = source.seek
        self.tell = source.tell
        self.seekable = source.seekable

    def close(self) -> None:
        """Do nothing: the caller closes the file."""


class _TypedStream:
    """A body whose read errors are typed: its connection can break while it is read."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def read(self, size: int, /) -> bytes:
        with _typed_errors():
            return bytes(self._body.read(size))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._body.close()


@contextmanager
def _typed_errors(uri: str = "") -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError, S3UploadFailedError) as error:
        raise _typed(error, uri) from error


def _date(answer: Mapping[str, Any]) -> float | None:
    """Read the time at which the storage answered."""
    date = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return None if date is None else parsedate_to_datetime(date).timestamp()


def _age(head: Mapping[str, Any]) -> float:
    shown = _date(head)
    return (time.time() if shown is None else shown) - float(head["LastModified"].timestamp())


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _typed(error: Exception, uri: str = "") -> OmnifleetError:
    cause = error.__context__ if isinstance(error, S3UploadFailedError) else error
    if isinstance(cause, NoCredentialsError | PartialCredentialsError):
        return StorageRefused("there are no S3 credentials", "storage", "Set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY")
    if isinstance(cause, ParamValidationError):
        return StorageRefused(f"S3 has no such names: {error}", "storage", "Check the bucket's name and the key")
    if not isinstance(cause, ClientError):
        remedy = "See that it runs, and that OMNIFLEET_S3_ENDPOINT leads there"
        return StorageUnavailable(f"the object storage does not answer: {error}", "storage", remedy)
    code, status = _code(cause), int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in ABSENT and uri:
        return MediaNotFound(f"nothing is stored at {uri}", "uri", "Upload the file first")
    if code in BUSY or status >= 500 or status == 429:
        remedy = "Try again in a while; where it stays so, see its log and the room on its disk"
        return StorageUnavailable(f"the object storage is busy ({code})", "storage", remedy)
    remedy = "Check credentials, rights and the bucket's name"
    return StorageRefused(f"the object storage refuses ({code})", "storage", remedy)
