"""One way from arguments to a checked job, for calls of a client and for lines of a batch alike."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from omnifleet import FleetSettings, InvalidJob, MediaEmpty, MediaNotFound
from omnifleet.request.build import ARGUMENTS, OPTIONS
from omnifleet.request.calls import Calls, edit, generate, understand
from omnifleet.request.maker import JobMaker
from omnifleet.request.request import MEDIA, Request
from omnifleet.testing.storage import MemoryStorage
from support.data import media_files


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def maker(storage: MemoryStorage) -> JobMaker:
    return JobMaker(FleetSettings(), storage)


@pytest.mark.parametrize(
    ("namespace", "method"), [("understand", Calls.understand), ("generate", Calls.generate), ("edit", Calls.edit)]
)
def test_what_is_checked_is_what_the_call_takes(namespace: Any, method: Any) -> None:
    named = frozenset(inspect.signature(method).parameters) - {"self", "options"}

    assert named | OPTIONS[namespace] == ARGUMENTS[namespace]
    assert named >= set(MEDIA[namespace])


def test_a_job_has_the_id_that_it_is_given(maker: JobMaker) -> None:
    request = understand(question="What?")

    assert maker.make(request, job_id="batch-7")[0].job_id == "batch-7"
    assert maker.make(request)[0].job_id != maker.make(request)[0].job_id


def test_a_check_neither_reads_nor_uploads_media(
    maker: JobMaker, storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "street.wav").write_bytes(b"a recording")
    monkeypatch.setattr(storage, "describe_input", None)

    maker.check(edit("Add", tmp_path / "street.wav", desc="rain"))

    assert storage.objects == {}


@pytest.mark.parametrize("call", [JobMaker.make, JobMaker.check])
@pytest.mark.parametrize(
    ("arguments", "error", "field"),
    [
        ({"task": "Add", "audio": "nowhere.wav", "desc": "rain"}, MediaNotFound, "audio"),
        ({"task": "Add", "audio": b"", "desc": "rain"}, MediaEmpty, "audio"),
        ({"task": "Add", "audio": b"a recording"}, InvalidJob, "desc"),
        ({"task": "Add", "desc": "rain"}, InvalidJob, "audio"),
        ({"audio": b"a recording", "desc": "rain"}, InvalidJob, "task"),
        ({"task": "Add", "audio": b"a recording", "desc": "rain", "colour": "red"}, InvalidJob, "colour"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_uploaded(
    maker: JobMaker, storage: MemoryStorage, call: Any, arguments: dict[str, Any], error: Any, field: str
) -> None:
    with pytest.raises(error) as refused:
        call(maker, Request("edit", arguments))

    assert refused.value.field.split(".")[0] == field
    assert storage.objects == {}


def test_traces_name_the_task_and_never_a_question() -> None:
    assert understand("transcribe").title == "understand transcribe"
    assert understand("Who is it that speaks?").title == "understand question"
    assert understand(question="Who").title == "understand question"
    assert generate("t2a", "rain").title == "generate t2a"


@pytest.mark.parametrize("call", [JobMaker.make, JobMaker.check])
@pytest.mark.parametrize("format", ["mp3", "ogg"])
def test_a_format_that_cannot_hold_the_edited_recording_is_refused_before_it_is_uploaded(
    maker: JobMaker, storage: MemoryStorage, tmp_path: Path, format: Any, call: Any
) -> None:
    source = tmp_path / "fast.flac"
    source.write_bytes(media_files.encode("flac", media_files.tone(0.1, 384_000), 384_000))

    with pytest.raises(InvalidJob, match=f"{format} cannot hold 1 channel at 384000 Hz") as refused:
        call(maker, edit("Speech", source, desc="delete 'um'", format=format))

    assert refused.value.field == "format"
    assert storage.objects == {}
    call(maker, edit("Speech", source, desc="delete 'um'", format="flac"))
    call(maker, edit("Add", source, desc="rain", format=format))


def test_what_is_uploaded_after_that_look_is_the_whole_file(
    maker: JobMaker, storage: MemoryStorage, tmp_path: Path
) -> None:
    source = tmp_path / "call.flac"
    source.write_bytes(media_files.encode("flac", media_files.tone(0.1, 44_100), 44_100))

    maker.make(edit("Speech", source, desc="delete 'um'", format="ogg"))

    assert source.read_bytes() in list(storage.objects.values())
