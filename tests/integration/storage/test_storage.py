"""One interface, two homes: a folder, and a real S3 API. What holds for one holds for the other."""

from __future__ import annotations

import gc
import io
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from botocore.awsrequest import AWSResponse
from omnifleet_shared.errors import (
    ForeignURI,
    InvalidSetting,
    MediaError,
    MediaNotFound,
    MediaTooLarge,
    OmnifleetError,
    StorageRefused,
    StorageUnavailable,
)
from omnifleet_shared.settings import MEBIBYTE, FleetSettings
from omnifleet_shared.storage import FolderStorage, Storage, base, open_storage, s3
from omnifleet_shared.storage.base import TOUCH_AFTER, verify_sha256
from omnifleet_shared.storage.s3 import S3Storage
from support import services

WAV = "audio/wav"
TONE = bytes(range(256)) * 40


class CountingSource(io.BytesIO):
    """A file that says how much of it was read, and breaks where it is told to."""

    def __init__(self, data: bytes, breaks_at: int | None = None) -> None:
        super().__init__(data)
        self.bytes_read = 0
        self.breaks_at = breaks_at

    def read(self, size: int | None = -1, /) -> bytes:
        if self.breaks_at is not None and self.tell() >= self.breaks_at:
            raise RuntimeError("the disk was pulled out")
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def s3_storage(server: services.S3Server, place: str, **changes: Any) -> S3Storage:
    storage = open_storage(FleetSettings(storage=f"s3://{place}", s3_endpoint=server.endpoint, **changes))
    assert isinstance(storage, S3Storage)
    return storage


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Each home in turn, below a prefix."""
    if request.param == "folder":
        return open_storage(FleetSettings(storage=f"file://{request.getfixturevalue('folder')}/home"))
    bucket = request.getfixturevalue("bucket")
    return s3_storage(request.getfixturevalue("s3_server"), f"{bucket}/home")


def checks_signatures(server: services.S3Server) -> bool:
    """MinIO does; moto takes any credentials and none."""
    headers = server.client().list_buckets()["ResponseMetadata"]["HTTPHeaders"]
    return "werkzeug" not in headers.get("server", "").lower()


def download(url: str) -> bytes:
    """What anyone gets who has the link and nothing else."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def answer_to(storage: S3Storage, operation: str, status: int, body: str) -> None:
    """Let the storage hear this answer to every request of an operation, in place of the server's."""

    def answer(request: Any, **_: object) -> AWSResponse:
        raw: Any = io.BytesIO(body.encode())
        raw.stream = lambda *_, **__: iter([body.encode()])
        return AWSResponse(request.url, status, {}, raw)

    storage._client.meta.events.register(f"before-send.s3.{operation}", answer)


def age(storage: Storage, uri: str) -> float:
    stored = storage.stat(uri)
    assert stored is not None
    assert stored.age is not None
    return stored.age


def put(storage: Storage, key: str, data: bytes = TONE) -> str:
    return storage.put(key, io.BytesIO(data), content_type=WAV).uri


class TestObjects:
    def test_what_was_put_comes_back(self, storage: Storage) -> None:
        uri = put(storage, "results/j1.wav")

        assert storage.get(uri, max_bytes=len(TONE)) == TONE

    def test_put_tells_uri_and_size(self, storage: Storage) -> None:
        stored = storage.put("results/j1.wav", io.BytesIO(TONE), content_type=WAV)

        assert stored.uri == storage.uri("results/j1.wav")
        assert stored.bytes == len(TONE)

    def test_stat_tells_the_same_as_put(self, storage: Storage) -> None:
        stored = storage.put("results/j1.wav", io.BytesIO(TONE), content_type=WAV)

        assert storage.stat(stored.uri) == stored

    def test_an_empty_object_is_an_object(self, storage: Storage) -> None:
        uri = put(storage, "results/empty.wav", b"")

        stored = storage.stat(uri)

        assert stored is not None
        assert stored.bytes == 0
        assert storage.get(uri, max_bytes=0) == b""

    def test_putting_again_replaces(self, storage: Storage) -> None:
        put(storage, "results/j1.wav", b"first and longer")
        uri = put(storage, "results/j1.wav", b"second")

        assert storage.get(uri, max_bytes=100) == b"second"

    def test_what_was_deleted_is_gone_and_may_be_deleted_again(self, storage: Storage) -> None:
        uri = storage.put("a", io.BytesIO(TONE), content_type=WAV).uri

        storage.delete(uri)
        storage.delete(uri)

        assert storage.stat(uri) is None

    def test_nothing_outside_is_deleted(self, storage: Storage) -> None:
        with pytest.raises(ForeignURI):
            storage.delete("s3://elsewhere/a")

    def test_a_listing_tells_what_begins_with_the_prefix(self, storage: Storage) -> None:
        wanted = {put(storage, key, key.encode()): len(key) for key in ("parts/j1.a", "parts/j1.b", "parts/j1/deep er")}
        put(storage, "parts/j2.a"), put(storage, "results/j1.a")

        found = list(storage.list("parts/j1"))

        assert {one.uri: one.bytes for one in found} == wanted
        assert all(abs(one.modified - time.time()) < 60 for one in found)
        assert list(storage.list("nothing/")) == []

    def test_nothing_outside_is_listed(self, storage: Storage, tmp_path: Path) -> None:
        (tmp_path / "a").touch()

        with suppress(ForeignURI, StorageRefused):  # MinIO refuses such a name, other stores find nothing
            assert list(storage.list("../")) == []

    def test_open_streams_in_pieces(self, storage: Storage) -> None:
        uri = put(storage, "results/j1.wav")

        with storage.open(uri) as stream:
            pieces = list(iter(lambda: stream.read(1000), b""))

        assert b"".join(pieces) == TONE
        assert max(len(piece) for piece in pieces) <= 1000

    def test_only_the_rest_of_a_source_is_put(self, storage: Storage) -> None:
        source = io.BytesIO(TONE)
        source.seek(100)

        stored = storage.put("results/rest.wav", source, content_type=WAV)

        assert stored.bytes == len(TONE) - 100
        assert storage.get(stored.uri, max_bytes=len(TONE)) == TONE[100:]

    def test_the_callers_file_stays_open(self, storage: Storage, tmp_path: Path) -> None:
        path = tmp_path / "street.wav"
        path.write_bytes(TONE)

        with path.open("rb") as source:
            storage.put("results/j1.wav", source, content_type=WAV)

            assert not source.closed
            assert source.read() == b""

    def test_uri_and_key_are_inverse(self, storage: Storage) -> None:
        for key in ("results/j1.wav", "inputs/ab/abc", "a b", "ü/日本", "a%2Fb", "a+b", "a..b/..c"):
            assert storage.key(storage.uri(key)) == key

    def test_odd_names_are_kept_apart(self, storage: Storage) -> None:
        keys = ["a b", "a%20b", "a+b", "ü", "a&b=c"]
        uris = [put(storage, key, key.encode()) for key in keys]

        assert [storage.get(uri, max_bytes=100).decode() for uri in uris] == keys

    def test_nothing_leaks(self, storage: Storage) -> None:
        uri = put(storage, "results/j1.wav")
        storage.get(uri, max_bytes=len(TONE))
        with storage.open(uri) as stream:
            stream.read(1)

        del storage, stream
        gc.collect()  # a ResourceWarning here fails the test


class TestTouch:
    def test_a_touched_object_is_young_and_otherwise_as_it_was(self, bucket: str, s3_server: services.S3Server) -> None:
        storage, client = s3_storage(s3_server, bucket), s3_server.client()
        client.put_object(Bucket=bucket, Key="k", Body=TONE, ContentType=WAV, Metadata={"mark": "first"})
        before = client.head_object(Bucket=bucket, Key="k")
        services.wait_until(lambda: age(storage, storage.uri("k")) >= 2, what="the object is old")

        assert storage.touch(storage.uri("k"))

        after = client.head_object(Bucket=bucket, Key="k")
        assert after["LastModified"] > before["LastModified"]
        assert (after["ContentType"], after["Metadata"]) == (WAV, {"mark": "first"})
        assert storage.get(storage.uri("k"), max_bytes=len(TONE)) == TONE

    def test_a_large_object_is_copied_in_several_parts(
        self, bucket: str, s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage, data, copied = s3_storage(s3_server, bucket), os.urandom(11 * MEBIBYTE), list[str]()
        monkeypatch.setattr(s3, "COPY_PART", 5 * MEBIBYTE)
        uri = put(storage, "large", data)
        storage._client.meta.events.register("before-call.s3.UploadPartCopy", lambda **_: copied.append("a part"))

        assert storage.touch(uri)

        assert storage.get(uri, max_bytes=len(data)) == data
        assert len(copied) == 3

    def test_there_is_nothing_to_touch_where_nothing_is(self, storage: Storage) -> None:
        assert not storage.touch(storage.uri("results/none.wav"))

    def test_what_vanishes_while_it_is_touched_is_not_there(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = s3_storage(s3_server, bucket)
        uri = put(storage, "k")

        def delete(**_: object) -> None:
            s3_server.client().delete_object(Bucket=bucket, Key="k")

        storage._client.meta.events.register("before-call.s3.UploadPartCopy", delete)

        assert not storage.touch(uri)

    def test_nothing_outside_is_touched(self, storage: Storage) -> None:
        with pytest.raises(ForeignURI):
            storage.touch("s3://elsewhere/a")


class TestDeletionOfMany:
    def test_those_that_are_there_are_deleted(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "MOST_DELETED", 2)
        uris = [put(storage, f"results/j{number}/1.wav") for number in range(5)]

        storage.delete_many([*uris[:4], storage.uri("results/none")])

        assert [one.uri for one in storage.list("results/")] == uris[4:]

    def test_what_is_refused_is_an_error(
        self, bucket: str, s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage = s3_storage(s3_server, bucket)
        refused = {"Errors": [{"Key": "k", "Code": "AccessDenied", "Message": "Access Denied."}]}
        monkeypatch.setattr(storage._client, "delete_objects", lambda **_: refused)

        with pytest.raises(StorageRefused, match="AccessDenied"):
            storage.delete_many([storage.uri("k")])


class TestUrl:
    def test_the_link_downloads_without_credentials(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        url = storage.url(put(storage, "results/j 1 ü.wav"), lifetime=60)
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)

        assert download(url) == TONE

    def test_the_link_holds_no_secret(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = s3_storage(s3_server, bucket)

        assert s3_server.secret_key not in storage.url(put(storage, "k"), lifetime=60)

    def test_without_its_signature_the_link_is_refused(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = s3_storage(s3_server, bucket)
        url = storage.url(put(storage, "k"), lifetime=60)

        if not checks_signatures(s3_server):
            pytest.skip("moto does not check signatures")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            download(url.partition("?")[0])

    def test_the_link_says_when_it_expires(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = s3_storage(s3_server, bucket)

        assert "X-Amz-Expires=77" in storage.url(storage.uri("k"), lifetime=77)

    def test_the_link_names_the_public_endpoint_and_works_there(
        self, bucket: str, s3_server: services.S3Server
    ) -> None:
        public = s3_server.endpoint.replace("127.0.0.1", "localhost")
        storage = s3_storage(s3_server, bucket, s3_public_endpoint=public)

        url = storage.url(put(storage, "k"), lifetime=60)

        assert url.startswith(f"{public}/")
        assert download(url) == TONE

    def test_a_public_endpoint_that_is_no_url_is_named(self, bucket: str, s3_server: services.S3Server) -> None:
        with pytest.raises(InvalidSetting, match="OMNIFLEET_S3_PUBLIC_ENDPOINT"):
            s3_storage(s3_server, bucket, s3_public_endpoint="media.example.com")

    @pytest.mark.parametrize(
        ("environment", "region"),
        [
            ({}, "us-east-1"),
            ({"AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
            ({"AWS_DEFAULT_REGION": "eu-west-1", "AWS_REGION": "eu-west-2"}, "eu-west-2"),
            ({"AWS_REGION": "eu-west-2", "OMNIFLEET_S3_REGION": "eu-west-3"}, "eu-west-3"),
        ],
    )
    def test_requests_are_signed_for_the_region_of_the_environment(
        self,
        bucket: str,
        s3_server: services.S3Server,
        monkeypatch: pytest.MonkeyPatch,
        environment: dict[str, str],
        region: str,
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        storage = s3_storage(s3_server, bucket)

        assert f"%2F{region}%2Fs3%2F" in storage.url(storage.uri("k"), lifetime=60)

    @pytest.mark.parametrize(
        ("expires_in", "wanted", "given"),
        [(7200, 3600, (3600, 3600)), (7200, 80_000, (7100, 7200)), (None, 60, (60, 60)), (None, 80_000, (3600, 3600))],
    )
    def test_the_link_promises_no_more_than_its_session_token_lasts(
        self,
        bucket: str,
        s3_server: services.S3Server,
        monkeypatch: pytest.MonkeyPatch,
        expires_in: int | None,
        wanted: int,
        given: tuple[int, int],
    ) -> None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
        if expires_in is not None:
            expires = datetime.now(UTC) + timedelta(seconds=expires_in)
            monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", expires.isoformat())
        storage = s3_storage(s3_server, bucket)

        (lasts,) = parse_qs(urlsplit(storage.url(storage.uri("k"), lifetime=wanted)).query)["X-Amz-Expires"]

        assert given[0] <= int(lasts) <= given[1]


class TestPlace:
    def test_the_prefix_is_respected_in_the_bucket(self, bucket: str, s3_server: services.S3Server) -> None:
        uri = put(s3_storage(s3_server, f"{bucket}/deep/home/"), "results/j1.wav")

        listed = s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]

        assert [entry["Key"] for entry in listed] == ["deep/home/results/j1.wav"]
        assert uri == f"s3://{bucket}/deep/home/results/j1.wav"

    def test_the_prefix_is_respected_in_the_folder(self, folder: Path) -> None:
        put(FolderStorage(folder / "home"), "results/j1.wav")

        assert [path for path in folder.rglob("*") if path.is_file()] == [folder / "home/results/j1.wav"]

    def test_the_content_type_is_kept(self, bucket: str, s3_server: services.S3Server) -> None:
        put(s3_storage(s3_server, bucket), "results/j1.wav")

        assert s3_server.client().head_object(Bucket=bucket, Key="results/j1.wav")["ContentType"] == WAV

    def test_the_link_gives_the_content_type_and_a_name_to_save_it_under(
        self, bucket: str, s3_server: services.S3Server
    ) -> None:
        storage = s3_storage(s3_server, bucket)
        stored = storage.put("results/j1/1.wav", io.BytesIO(TONE), content_type=WAV, filename="add-j1.wav")
        storage.touch(stored.uri)

        with urllib.request.urlopen(storage.url(stored.uri, lifetime=60), timeout=60) as answer:
            assert answer.headers["Content-Type"] == WAV
            assert answer.headers["Content-Disposition"] == 'inline; filename="add-j1.wav"'

    def test_a_file_can_be_read_by_others(self, folder: Path) -> None:
        put(FolderStorage(folder), "results/j1.wav")

        assert (folder / "results/j1.wav").stat().st_mode & 0o777 == 0o644


class TestLimits:
    def test_exactly_the_limit_is_taken(self, storage: Storage) -> None:
        uri = put(storage, "k", b"12345")

        assert storage.get(uri, max_bytes=5) == b"12345"

    def test_one_byte_more_is_refused(self, storage: Storage) -> None:
        uri = put(storage, "k", b"123456")

        with pytest.raises(MediaTooLarge, match="over 5 bytes") as caught:
            storage.get(uri, max_bytes=5)

        assert caught.value.remedy

    def test_the_rest_is_not_read(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        uri = put(storage, "k", bytes(3 * MEBIBYTE))
        sizes: list[int] = []
        opened = storage.open

        def counting(uri: str) -> Any:
            stream = opened(uri)
            read = stream.read

            class Counted:
                def read(self, size: int, /) -> bytes:
                    data = read(size)
                    sizes.append(len(data))
                    return data

                def __enter__(self) -> Counted:
                    return self

                def __exit__(self, *error: object) -> None:
                    stream.__exit__(None, None, None)

            return Counted()

        monkeypatch.setattr(storage, "open", counting)

        with pytest.raises(MediaTooLarge):
            storage.get(uri, max_bytes=1000)

        assert sum(sizes) == 1001

    def test_a_missing_object_has_no_stat(self, storage: Storage) -> None:
        assert storage.stat(storage.uri("results/none.wav")) is None

    def test_a_missing_object_is_not_found(self, storage: Storage) -> None:
        with pytest.raises(MediaNotFound, match=r"results/none.wav"):
            storage.get(storage.uri("results/none.wav"), max_bytes=10)

    def test_a_missing_object_can_not_be_opened(self, storage: Storage) -> None:
        with pytest.raises(MediaNotFound), storage.open(storage.uri("results/none.wav")):
            pass

    def test_a_name_too_long_is_refused_for_good(self, storage: Storage) -> None:
        with pytest.raises(OmnifleetError) as caught:
            storage.get(storage.uri("a" * 1500), max_bytes=10)

        assert isinstance(caught.value, StorageRefused | MediaNotFound)


class TestInputs:
    def test_an_input_lies_under_its_hash(self, storage: Storage) -> None:
        media = storage.describe_input(io.BytesIO(b"hello"))

        sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        assert media.sha256 == sha256
        assert media.bytes == 5
        assert media.uri == storage.uri(f"inputs/2c/{sha256}")

    def test_describing_uploads_nothing(self, storage: Storage) -> None:
        media = storage.describe_input(io.BytesIO(TONE))

        assert storage.stat(media.uri) is None

    def test_describing_leaves_the_source_at_its_start(self, storage: Storage) -> None:
        source = io.BytesIO(TONE)
        source.seek(17)

        storage.describe_input(source)

        assert source.tell() == 0

    def test_an_input_comes_back(self, storage: Storage) -> None:
        source = io.BytesIO(TONE)
        media = storage.put_input(storage.describe_input(source), source)

        data = storage.get(media.uri, max_bytes=len(TONE))

        assert data == TONE
        verify_sha256(media, data, "audio")

    def test_the_same_bytes_are_uploaded_once(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        media = storage.describe_input(io.BytesIO(TONE))
        storage.put_input(media, io.BytesIO(TONE))
        again = CountingSource(TONE)

        storage.put_input(media, again)

        assert again.bytes_read == 0

    @pytest.mark.parametrize(("age", "is_touched"), [(60, False), (TOUCH_AFTER - 60, False), (TOUCH_AFTER + 60, True)])
    def test_the_second_upload_only_makes_an_old_file_young(self, folder: Path, age: float, is_touched: bool) -> None:
        storage = FolderStorage(folder)
        media = storage.describe_input(io.BytesIO(TONE))
        storage.put_input(media, io.BytesIO(TONE))
        path = folder / storage.key(media.uri)
        stored = time.time() - age
        os.utime(path, (stored, stored))
        before = path.stat()

        storage.put_input(media, io.BytesIO(TONE))

        assert path.stat().st_ino == before.st_ino
        assert (path.stat().st_mtime == before.st_mtime) is not is_touched
        assert not is_touched or time.time() - path.stat().st_mtime < 60

    def test_the_second_upload_makes_an_old_object_young(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(base, "TOUCH_AFTER", 1.0)
        media = storage.describe_input(io.BytesIO(TONE))
        storage.put_input(media, io.BytesIO(TONE))
        services.wait_until(lambda: age(storage, media.uri) >= 2, what="the object is old")
        again = CountingSource(TONE)

        storage.put_input(media, again)

        assert age(storage, media.uri) < 2
        assert again.bytes_read == 0

    def test_what_is_deleted_just_before_it_is_touched_is_uploaded_again(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        media = storage.describe_input(io.BytesIO(TONE))
        storage.put_input(media, io.BytesIO(TONE))
        touch = storage.touch
        monkeypatch.setattr(base, "TOUCH_AFTER", -1.0)
        monkeypatch.setattr(storage, "touch", lambda uri: storage.delete(uri) or touch(uri))

        storage.put_input(media, io.BytesIO(TONE))

        assert storage.get(media.uri, max_bytes=len(TONE)) == TONE

    def test_the_second_upload_leaves_the_object_alone(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = s3_storage(s3_server, bucket)
        media = storage.describe_input(io.BytesIO(TONE))
        # Stored with a mark that no upload of ours would keep.
        key = storage.key(media.uri)
        s3_server.client().put_object(Bucket=bucket, Key=key, Body=TONE, Metadata={"mark": "first"})

        storage.put_input(media, io.BytesIO(TONE))

        assert s3_server.client().head_object(Bucket=bucket, Key=key)["Metadata"] == {"mark": "first"}

    def test_an_input_cut_short_is_uploaded_again(self, storage: Storage) -> None:
        media = storage.describe_input(io.BytesIO(TONE))
        put(storage, storage.key(media.uri), TONE[:10])

        storage.put_input(media, io.BytesIO(TONE))

        assert storage.get(media.uri, max_bytes=len(TONE)) == TONE

    def test_other_bytes_than_the_uploaded_ones_are_noticed(self, storage: Storage) -> None:
        media = storage.describe_input(io.BytesIO(TONE))

        with pytest.raises(MediaError, match="not the file that was uploaded") as caught:
            verify_sha256(media, TONE[::-1], "audio")

        assert caught.value.field == "audio"


class TestMultipart:
    @pytest.fixture
    def small_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3, "MULTIPART_ABOVE", 5 * MEBIBYTE)

    def test_a_large_file_goes_in_parts(self, bucket: str, s3_server: services.S3Server, small_parts: None) -> None:
        storage = s3_storage(s3_server, bucket)
        data = os.urandom(MEBIBYTE) * 17

        stored = storage.put("large.wav", io.BytesIO(data), content_type=WAV)

        head = s3_server.client().head_object(Bucket=bucket, Key="large.wav")
        assert head["ETag"].strip('"').endswith("-2")
        assert stored.bytes == head["ContentLength"] == len(data)
        assert storage.get(stored.uri, max_bytes=len(data)) == data

    def test_its_source_stays_open(self, bucket: str, s3_server: services.S3Server, small_parts: None) -> None:
        source = io.BytesIO(bytes(6 * MEBIBYTE))

        s3_storage(s3_server, bucket).put("large.wav", source, content_type=WAV)

        assert not source.closed

    def test_a_small_file_goes_whole(self, bucket: str, s3_server: services.S3Server, small_parts: None) -> None:
        put(s3_storage(s3_server, bucket), "small.wav")

        assert "-" not in s3_server.client().head_object(Bucket=bucket, Key="small.wav")["ETag"]

    def test_a_source_that_breaks_leaves_no_object(
        self, bucket: str, s3_server: services.S3Server, small_parts: None
    ) -> None:
        storage = s3_storage(s3_server, bucket)

        with pytest.raises(RuntimeError, match="pulled out"):
            storage.put("large.wav", CountingSource(bytes(17 * MEBIBYTE), 16 * MEBIBYTE), content_type=WAV)

        assert storage.stat(storage.uri("large.wav")) is None

    def test_a_source_that_breaks_leaves_no_parts(
        self, bucket: str, s3_server: services.S3Server, small_parts: None
    ) -> None:
        storage = s3_storage(s3_server, bucket)

        with pytest.raises(RuntimeError, match="pulled out"):
            storage.put("large.wav", CountingSource(bytes(17 * MEBIBYTE), 16 * MEBIBYTE), content_type=WAV)

        assert "Uploads" not in s3_server.client().list_multipart_uploads(Bucket=bucket, Prefix="large.wav")


class TestBreakingSource:
    def test_nothing_becomes_visible(self, storage: Storage) -> None:
        source = CountingSource(bytes(3 * MEBIBYTE), breaks_at=MEBIBYTE)

        with pytest.raises(RuntimeError, match="pulled out"):
            storage.put("results/j1.wav", source, content_type=WAV)

        assert storage.stat(storage.uri("results/j1.wav")) is None

    def test_what_was_there_stays(self, storage: Storage) -> None:
        uri = put(storage, "results/j1.wav")

        with pytest.raises(RuntimeError, match="pulled out"):
            storage.put("results/j1.wav", CountingSource(bytes(10), breaks_at=0), content_type=WAV)

        assert storage.get(uri, max_bytes=len(TONE)) == TONE

    def test_no_part_is_left_in_the_folder(self, folder: Path) -> None:
        storage = FolderStorage(folder)

        with pytest.raises(RuntimeError, match="pulled out"):
            storage.put("results/j1.wav", CountingSource(bytes(10), breaks_at=0), content_type=WAV)

        assert list((folder / "results").iterdir()) == []


FOREIGN = [
    *("", "street.wav", "/etc/passwd", "../street.wav", "http://example.com/a.wav", "gs://media/a.wav", "data:,a"),
    *("{home}", "{home}/", "{home}/../other/a", "{home}/a/../../other/a", "{home}/%2e%2e/other/a"),
    *("{home}/%2E%2e%2Fother/a", "{home}/a?versionId=1", "{home}/a#b", "{home}other/a", "{parent}/a", "{parent}"),
    *("{home}/..", "{home}/a/%2e%2e/../../other"),
]
FOREIGN_FILES = [
    *("file:///etc/passwd", "file://example.com{path}/a", "file://127.0.0.1{path}/a", "FILE:{path}/../a"),
    *("file://[{path}/a", "file://{path}/\0", "file://{path}/%00", "s3://bucket/a", "file:a", "file:", "file://~/a"),
    *("file://user@localhost{path}/a", "file://localhost:80{path}/a", "{path}/a", "file://\ud800{path}/a"),
]
FOREIGN_OBJECTS = [
    *("s3://other/home/a", "s3://media/a", "s3://media.evil/home/a", "S3://media/home/a"),
    *("s3://media/home/../a", "s3://media/homes/a", "s3:///home/a", "s3://user@media/home/a"),
    *("file:///etc/passwd", "https://media.s3.amazonaws.com/home/a", "s3://media:80/home/a", "media/home/a"),
]


def assert_foreign(storage: Storage, uri: str) -> None:
    for ask in (
        storage.key,
        storage.stat,
        storage.open,
        lambda uri: storage.url(uri, lifetime=60),
        lambda uri: storage.get(uri, max_bytes=10),
    ):
        with pytest.raises(ForeignURI) as caught:
            ask(uri)
        assert caught.value.field == "uri"
        assert caught.value.remedy
        assert len(str(caught.value)) < 1000


@pytest.fixture(scope="module")
def unreachable_bucket() -> S3Storage:
    """A foreign URI is refused before anyone is asked: there is nobody to ask."""
    return s3_storage(services.S3Server(f"http://127.0.0.1:{services.free_port()}", "a", "b"), "media/home")


class TestForeign:
    @pytest.mark.parametrize("pattern", FOREIGN)
    def test_no_way_leads_out_of_a_folder(self, folder: Path, pattern: str) -> None:
        home = f"file://{folder}/home"

        assert_foreign(FolderStorage(folder / "home"), pattern.format(home=home, parent=f"file://{folder}"))

    @pytest.mark.parametrize("pattern", FOREIGN)
    def test_no_way_leads_out_of_a_bucket(self, unreachable_bucket: S3Storage, pattern: str) -> None:
        assert_foreign(unreachable_bucket, pattern.format(home="s3://media/home", parent="s3://media"))

    @pytest.mark.parametrize("pattern", FOREIGN_FILES)
    def test_no_file_outside(self, folder: Path, pattern: str) -> None:
        (folder / "home").mkdir()
        (folder / "a").write_bytes(b"secret")

        assert_foreign(FolderStorage(folder / "home"), pattern.format(path=folder / "home"))

    @pytest.mark.parametrize("uri", FOREIGN_OBJECTS)
    def test_no_object_outside(self, unreachable_bucket: S3Storage, uri: str) -> None:
        assert_foreign(unreachable_bucket, uri)

    def test_a_link_out_of_the_folder(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"secret")
        (folder / "a").symlink_to(tmp_path / "secret")

        assert_foreign(FolderStorage(folder), f"file://{folder}/a")

    def test_a_folder_that_links_out(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_bytes(b"secret")
        (folder / "results").symlink_to(tmp_path)

        assert_foreign(FolderStorage(folder), f"file://{folder}/results/secret")

    def test_nothing_is_put_through_a_link_that_leads_out(self, folder: Path, tmp_path: Path) -> None:
        (folder / "results").symlink_to(tmp_path)

        with pytest.raises(ForeignURI):
            put(FolderStorage(folder), "results/j1.wav")

    def test_links_in_a_circle(self, folder: Path) -> None:
        (folder / "a").symlink_to(folder / "b")
        (folder / "b").symlink_to(folder / "a")

        assert_foreign(FolderStorage(folder), f"file://{folder}/a")

    def test_a_link_inside_the_folder_is_followed(self, folder: Path) -> None:
        storage = FolderStorage(folder)
        put(storage, "real.wav")
        (folder / "link.wav").symlink_to(folder / "real.wav")

        assert storage.get(f"file://{folder}/link.wav", max_bytes=len(TONE)) == TONE

    def test_a_folder_that_is_itself_a_link_is_home(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "home").symlink_to(folder)
        storage = FolderStorage(tmp_path / "home")

        assert storage.get(put(storage, "k"), max_bytes=len(TONE)) == TONE
        assert storage.get(f"file://{tmp_path}/home/k", max_bytes=len(TONE)) == TONE

    def test_localhost_is_here(self, folder: Path) -> None:
        storage = FolderStorage(folder)
        put(storage, "k")

        assert storage.get(f"file://localhost{quote(str(folder))}/k", max_bytes=len(TONE)) == TONE


class TestRefusingFolder:
    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_no_right_to_write(self, folder: Path) -> None:
        folder.chmod(0o500)

        with pytest.raises(StorageRefused):
            put(FolderStorage(folder), "k")

    def test_a_file_where_a_folder_should_be(self, folder: Path) -> None:
        (folder / "results").write_bytes(b"")

        with pytest.raises(StorageRefused):
            put(FolderStorage(folder), "results/j1.wav")

    def test_a_folder_where_a_file_should_be(self, folder: Path) -> None:
        (folder / "results").mkdir()

        with pytest.raises(StorageRefused):
            put(FolderStorage(folder), "results")

    def test_a_folder_is_no_object(self, folder: Path) -> None:
        (folder / "results").mkdir()

        with pytest.raises(MediaNotFound):
            FolderStorage(folder).open(f"file://{folder}/results")


class TestAbsentFolder:
    def test_a_folder_that_goes_away_while_it_is_read(self, folder: Path) -> None:
        storage = FolderStorage(folder)
        broken = os.open("/proc/self/mem", os.O_RDONLY)  # reading it at 0 is an I/O error

        with storage.open(put(storage, "k")) as stream:
            os.dup2(broken, stream._file.fileno())  # type: ignore[attr-defined]
            os.close(broken)
            with pytest.raises(StorageUnavailable, match="does not answer"):
                stream.read(10)


class TestRefusingS3:
    @pytest.fixture
    def wrong_credentials(self, bucket: str, s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch) -> Storage:
        if not checks_signatures(s3_server):
            pytest.skip("moto takes any credentials")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        return s3_storage(s3_server, bucket)

    def test_wrong_credentials_put(self, wrong_credentials: Storage) -> None:
        with pytest.raises(StorageRefused, match="SignatureDoesNotMatch") as caught:
            put(wrong_credentials, "k")

        assert "credentials" in (caught.value.remedy or "")

    def test_wrong_credentials_get(self, wrong_credentials: Storage) -> None:
        with pytest.raises(StorageRefused):
            wrong_credentials.get(wrong_credentials.uri("k"), max_bytes=1)

    def test_wrong_credentials_stat(self, wrong_credentials: Storage) -> None:
        with pytest.raises(StorageRefused):
            wrong_credentials.stat(wrong_credentials.uri("k"))

    def test_no_credentials(self, bucket: str, s3_server: services.S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in s3_server.environment:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)

        with pytest.raises(StorageRefused, match="no S3 credentials") as caught:
            put(s3_storage(s3_server, bucket), "k")

        assert "AWS_ACCESS_KEY_ID" in (caught.value.remedy or "")

    @pytest.mark.parametrize("status", [404, 403])
    def test_a_head_that_is_forbidden_hides_what_is_absent(
        self, bucket: str, s3_server: services.S3Server, status: int
    ) -> None:
        """As S3 answers without s3:ListBucket."""
        storage = s3_storage(s3_server, bucket)
        answer_to(storage, "HeadObject", 403, "")
        if status == 403:
            answer_to(storage, "GetObject", 403, "<Error><Code>AccessDenied</Code></Error>")
        media = storage.describe_input(io.BytesIO(TONE))

        assert storage.stat(media.uri) is None
        storage.put_input(media, io.BytesIO(TONE))

        assert s3_server.client().get_object(Bucket=bucket, Key=storage.key(media.uri))["Body"].read() == TONE

    @pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
    def test_a_head_that_is_forbidden_for_another_reason_is_refused(
        self, bucket: str, s3_server: services.S3Server, code: str
    ) -> None:
        storage = s3_storage(s3_server, bucket)
        answer_to(storage, "HeadObject", 403, "")
        answer_to(storage, "GetObject", 403, f"<Error><Code>{code}</Code></Error>")

        with pytest.raises(StorageRefused):
            storage.stat(storage.uri("k"))

    def test_a_head_that_is_forbidden_of_what_can_be_read_is_refused(
        self, bucket: str, s3_server: services.S3Server
    ) -> None:
        storage = s3_storage(s3_server, bucket)
        uri = put(storage, "k")
        answer_to(storage, "HeadObject", 403, "")

        with pytest.raises(StorageRefused):
            storage.stat(uri)

    def test_no_bucket_to_put_to(self, bucket: str, s3_server: services.S3Server) -> None:
        with pytest.raises(StorageRefused, match="NoSuchBucket") as caught:
            put(s3_storage(s3_server, f"{bucket}-none"), "k")

        assert "bucket" in (caught.value.remedy or "")

    def test_no_bucket_to_get_from(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = s3_storage(s3_server, f"{bucket}-none")

        with pytest.raises(StorageRefused, match="NoSuchBucket"):
            storage.get(storage.uri("k"), max_bytes=1)

    def test_an_input_has_nowhere_to_go_without_a_bucket(self, bucket: str, s3_server: services.S3Server) -> None:
        storage = s3_storage(s3_server, f"{bucket}-none")
        media = storage.describe_input(io.BytesIO(TONE))

        with pytest.raises(StorageRefused, match="NoSuchBucket"):
            storage.put_input(media, io.BytesIO(TONE))

    def test_a_name_that_no_bucket_can_have(self, bucket: str, s3_server: services.S3Server) -> None:
        with pytest.raises(StorageRefused):
            put(s3_storage(s3_server, "no such bucket"), "k")


class TestAbsentS3:
    @pytest.fixture
    def nobody(self, bucket: str) -> Iterator[Storage]:
        server = services.S3Server(f"http://127.0.0.1:{services.free_port()}", "a", "b")
        yield s3_storage(server, bucket)

    def test_put(self, nobody: Storage) -> None:
        with pytest.raises(StorageUnavailable, match="does not answer"):
            put(nobody, "k")

    def test_get(self, nobody: Storage) -> None:
        with pytest.raises(StorageUnavailable):
            nobody.get(nobody.uri("k"), max_bytes=1)

    def test_stat(self, nobody: Storage) -> None:
        with pytest.raises(StorageUnavailable):
            nobody.stat(nobody.uri("k"))

    def test_a_link_needs_no_answer(self, nobody: Storage) -> None:
        assert "X-Amz-Signature" in nobody.url(nobody.uri("k"), lifetime=60)
