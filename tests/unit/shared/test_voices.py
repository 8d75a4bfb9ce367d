"""Voices in the storage: what is written under a name is found under it, and removed with all that was made of it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omnifleet.testing.storage import MemoryStorage
from omnifleet_shared.errors import InvalidJob, InvalidMessage, MediaNotFound, VoiceNotFound
from omnifleet_shared.keys import VOICE_KEY
from omnifleet_shared.schema.voice import Voice
from omnifleet_shared.storage import FolderStorage, Storage
from omnifleet_shared.storage.voices import VoiceFiles

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def voice(name: str = "anna", recording: bytes = b"hello") -> Voice:
    sha256 = hashlib.sha256(recording).hexdigest()
    return Voice(name=name, sha256=sha256, bytes=len(recording), consent="a contract", added_by="me@here", added_at=NOW)


def write(storage: Storage, name: str = "anna", recording: bytes = b"hello") -> Voice:
    written = voice(name, recording)
    VoiceFiles(storage).write(written, io.BytesIO(recording))
    return written


@pytest.fixture(params=["folder", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return FolderStorage(tmp_path) if request.param == "folder" else MemoryStorage()


def stored(storage: Storage) -> set[str]:
    return {storage.key(found.uri) for found in storage.list("")}


def test_a_voice_is_found_under_its_name(storage: Storage) -> None:
    files = VoiceFiles(storage)
    written = [write(storage, name, name.encode()) for name in ("anna", "anna-2", "b_1")]

    assert [files.read(one.name) for one in written] == written
    assert sorted(files.names()) == ["anna", "anna-2", "b_1"]
    media = files.media(written[1])
    assert storage.get(media.uri, max_bytes=99) == b"anna-2"
    assert files.name_of(media.uri) == "anna-2"


def test_a_record_of_a_newer_release_is_read(storage: Storage) -> None:
    written = write(storage)
    newer = written.model_dump_json().replace("{", '{"shoe_size": 38, ', 1)
    storage.put(VOICE_KEY.format(name="anna"), io.BytesIO(newer.encode()), content_type="application/json")

    assert VoiceFiles(storage).read("anna") == written


def test_what_is_no_record_says_so(storage: Storage) -> None:
    storage.put(VOICE_KEY.format(name="anna"), io.BytesIO(b"{}"), content_type="application/json")

    with pytest.raises(InvalidMessage, match="'anna' cannot be read"):
        VoiceFiles(storage).read("anna")


def test_removing_one_leaves_nothing_of_it_and_all_of_the_others(storage: Storage) -> None:
    files = VoiceFiles(storage)
    written = write(storage)
    write(storage, "anna-2")
    others = {key for key in stored(storage) if "anna-2" in key}
    made = storage.key(files.media(written).uri) + ".encoding"
    storage.put(made, io.BytesIO(b"x"), content_type="x/y")

    files.remove("anna")

    assert stored(storage) == others
    for attempt in (files.read, files.remove):
        with pytest.raises(VoiceNotFound) as missing:
            attempt("anna")
        assert isinstance(missing.value, MediaNotFound)


@pytest.mark.parametrize("calls", range(5))
def test_an_interrupted_removal_is_finished_by_the_next(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage()
    files = VoiceFiles(storage)
    storage.put(storage.key(files.media(write(storage)).uri) + ".made", io.BytesIO(b"x"), content_type="x/y")
    left = iter(range(calls))

    def failing(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            if next(left, None) is None:
                raise ConnectionError
            return method(*arguments)

        return call

    with monkeypatch.context() as broken:
        for name in ("delete", "delete_many", "list"):
            broken.setattr(storage, name, failing(getattr(storage, name)))
        with pytest.raises(ConnectionError):
            files.remove("anna")
    files.remove("anna")

    assert storage.objects == {}


@given(st.one_of(st.text(), st.from_regex(r"(\.\./)*[a-z/.%\\\0-]*", fullmatch=True)))
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    storage = MemoryStorage()
    files = VoiceFiles(storage)

    try:
        files.read(name)
    except InvalidJob as error:
        assert error.field == "name"
    except VoiceNotFound:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
        assert files.name_of(files.media(voice(name)).uri) == name


@pytest.mark.parametrize(
    "key",
    ["inputs/ab/cd", "voices/names/anna.json", "voices/files/anna/short", f"voices/files/anna/{'0' * 64}.made"],
)
def test_other_objects_are_no_voice_s(key: str) -> None:
    storage = MemoryStorage()

    assert VoiceFiles(storage).name_of(storage.uri(key)) is None
    assert VoiceFiles(storage).name_of("s3://elsewhere/voices/files/anna/" + "0" * 64) is None
