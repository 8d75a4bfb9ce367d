"""What users may pass as audio and video, and when it is uploaded."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from omnifleet import ForeignURI, InvalidJob, MediaEmpty, MediaNotFound, MediaTooLarge, MediaUnreadable, OmnifleetError
from omnifleet.request.uploads import Uploads
from omnifleet.testing import FakeClient
from omnifleet.testing.storage import MemoryStorage
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import FolderStorage, Storage

SOUND = b"RIFF and so on"
SHA256 = hashlib.sha256(SOUND).hexdigest()


class OneWay(io.RawIOBase):
    """A stream that cannot seek, as from a socket."""

    def __init__(self, data: bytes) -> None:
        self._left = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._left.readinto(buffer)


def describe(source: Any, storage: Storage | None = None, limit: int = 1000) -> Any:
    with Uploads(storage or MemoryStorage(), limit) as uploads:
        return uploads.describe(source, "audio")


@pytest.mark.parametrize("kind", ["str", "Path", "bytes", "bytearray", "file", "BytesIO", "one-way stream"])
def test_each_way_to_pass_media_uploads_the_same_object(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "call.mp3"
    path.write_bytes(SOUND)
    with path.open("rb") as file:
        sources = {
            "str": str(path),
            "Path": path,
            "bytes": SOUND,
            "bytearray": bytearray(SOUND),
            "file": file,
            "BytesIO": io.BytesIO(SOUND),
            "one-way stream": OneWay(SOUND),
        }
        storage = MemoryStorage()

        with Uploads(storage, 1000) as uploads:
            media = uploads.describe(sources[kind], "audio")
            uploads.send()

    assert (media.sha256, media.bytes) == (SHA256, len(SOUND))
    assert storage.objects == {f"inputs/{SHA256[:2]}/{SHA256}": SOUND}


def test_an_open_file_is_read_from_its_beginning_and_left_open() -> None:
    file = io.BytesIO(SOUND)
    file.seek(5)

    media = describe(file)

    assert media.sha256 == SHA256
    assert not file.closed


def test_one_stream_that_cannot_seek_serves_two_arguments() -> None:
    stream = OneWay(SOUND)

    with Uploads(MemoryStorage(), 1000) as uploads:
        heard, seen = uploads.describe(stream, "audio"), uploads.describe(stream, "video")

    assert heard == seen


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("missing.wav", MediaNotFound),
        ("", MediaUnreadable),
        ("nul\0.wav", MediaUnreadable),
        ("x" * 5000, MediaUnreadable),
        (b"", MediaEmpty),
        (io.BytesIO(), MediaEmpty),
        (OneWay(b""), MediaEmpty),
        (b"x" * 1001, MediaTooLarge),
        (OneWay(b"x" * 5000), MediaTooLarge),
        (io.StringIO("text"), InvalidJob),
        (42, InvalidJob),
        ("https://example.com/call.mp3?token=secret", ForeignURI),
        ("ftp://example.com/call.mp3", ForeignURI),
        ("s3://elsewhere/call.mp3", ForeignURI),
        ("file:///etc/passwd", ForeignURI),
        ("s3://memory/missing", MediaNotFound),
    ],
)
def test_what_cannot_be_media_is_refused_by_name(source: Any, error: type[OmnifleetError], tmp_path: Path) -> None:
    with pytest.raises(error) as refusal:
        describe(source)

    assert type(refusal.value) is error
    assert refusal.value.field == "audio"
    assert refusal.value.remedy
    assert "secret" not in str(refusal.value)


def test_a_folder_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(MediaUnreadable, match="is a folder"):
        describe(tmp_path)


def test_a_closed_file_is_unreadable(tmp_path: Path) -> None:
    file = io.BytesIO(SOUND)
    file.close()

    with pytest.raises(MediaUnreadable):
        describe(file)


def test_a_uri_inside_the_storage_is_taken_as_it_is(folder: Path) -> None:
    storage = FolderStorage(folder)
    (folder / "street.wav").write_bytes(SOUND)

    media = describe(storage.uri("street.wav"), storage)

    assert media.uri == storage.uri("street.wav")
    assert media.bytes == len(SOUND)


@pytest.mark.parametrize(("size", "error"), [(0, MediaEmpty), (1001, MediaTooLarge)])
def test_a_stored_object_has_the_same_limits(size: int, error: type[OmnifleetError]) -> None:
    storage = MemoryStorage()
    storage.objects["clip"] = b"x" * size

    with pytest.raises(error):
        describe("s3://memory/clip", storage)


@pytest.mark.parametrize(
    "request_",
    [
        lambda omni: omni.edit("add", SOUND),
        lambda omni: omni.edit("add", SOUND, desc="rain", steps=0),
        lambda omni: omni.edit("style", SOUND, desc="rain"),
        lambda omni: omni.generate("vc", ref=SOUND),
        lambda omni: omni.generate("tts", "Привет, мир", ref=SOUND),
        lambda omni: omni.understand("transcribe", [SOUND, "missing.wav"]),
        lambda omni: omni.understand("caption", SOUND, deadline=-1),
        lambda omni: omni.understand("caption", [SOUND] * 9),
    ],
)
def test_a_request_that_is_refused_uploads_and_submits_nothing(request_: Any) -> None:
    omni = FakeClient()

    with pytest.raises(OmnifleetError):
        request_(omni)

    assert omni.fleet.storage.objects == {}
    assert omni.jobs == []


def test_an_error_about_one_of_several_files_tells_which() -> None:
    with pytest.raises(MediaNotFound) as refusal:
        FakeClient().understand("transcribe", [SOUND, "missing.wav"])

    assert refusal.value.field == "audio.1"


def test_the_limit_is_a_setting() -> None:
    omni = FakeClient(settings=FleetSettings(max_input_bytes=3))

    with pytest.raises(MediaTooLarge) as refusal:
        omni.generate("tts", "Hello", ref=b"four")

    assert refusal.value.field == "ref"
    assert refusal.value.details == {"limit": 3}
