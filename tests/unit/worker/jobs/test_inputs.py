"""The media of a job, from a folder of files that are right, wrong, foreign and hostile."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omnifleet_shared.errors import (
    ForeignURI,
    MediaEmpty,
    MediaError,
    MediaNotFound,
    MediaTooLarge,
    MediaTooLong,
    MediaUnreadable,
)
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.storage import FolderStorage
from omnifleet_worker.jobs.inputs import JobMedia, decode, fetch
from omnifleet_worker.media.isolation.processes import shared_processes
from omnifleet_worker.media.limits import MediaLimits
from support.data import media_files

CARD = ModelCard(revision="1", licence="none", languages=("en",), max_edit_seconds=2.0, max_listen_seconds=4.0)
LIMIT = 2**30


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path / "storage")


def put(storage: FolderStorage, data: bytes) -> Media:
    return storage.put_input(storage.describe_input(io.BytesIO(data)), io.BytesIO(data))


def edit_of(audio: Media) -> Job:
    return job_of("edit", name="add", audio=audio.model_dump(), desc="rain")


def question_about(**media: Media) -> Job:
    return job_of("understand", name="caption", **{name: [one.model_dump()] for name, one in media.items()})


def job_of(namespace: str, **task: Any) -> Job:
    return read_job({"schema_version": 1, "namespace": namespace, "task": task})


def load(job: Job, storage: FolderStorage, card: ModelCard = CARD) -> JobMedia:
    return decode(job, fetch(job, storage, LIMIT), card, MediaLimits(), shared_processes())


def test_every_field_is_fetched_under_its_name(storage: FolderStorage) -> None:
    voice, speech = media_files.wav(0.5), media_files.wav(0.7)
    job = job_of("generate", name="vc", ref=put(storage, voice).model_dump(), audio=put(storage, speech).model_dump())

    assert fetch(job, storage, LIMIT) == {"ref": (voice,), "audio": (speech,)}


def test_a_job_without_media_fetches_nothing(storage: FolderStorage) -> None:
    assert fetch(job_of("understand", name="question", text="?"), storage, LIMIT) == {}


def test_other_bytes_than_those_that_were_uploaded_are_refused(storage: FolderStorage) -> None:
    stored = put(storage, media_files.wav(0.5))
    job = edit_of(stored.model_copy(update={"sha256": hashlib.sha256(b"others").hexdigest()}))

    with pytest.raises(MediaError, match="not the file that was uploaded") as caught:
        fetch(job, storage, LIMIT)

    assert caught.value.field == "audio"


@pytest.mark.parametrize("uri", ["file:///etc/passwd", "s3://elsewhere/key", "http://169.254.169.254/latest"])
@pytest.mark.parametrize("field", ["ref", "audio"])
def test_a_foreign_address_is_refused_with_the_field_that_holds_it(
    storage: FolderStorage, uri: str, field: str
) -> None:
    own = put(storage, media_files.wav(0.5)).model_dump()
    job = job_of("generate", **({"name": "vc", "ref": own, "audio": own} | {field: {"uri": uri}}))

    with pytest.raises(ForeignURI) as caught:
        fetch(job, storage, LIMIT)

    assert caught.value.field == field


def test_what_is_not_there_any_more_is_told_with_its_field(storage: FolderStorage) -> None:
    job = edit_of(Media(uri=storage.uri("inputs/gone")))

    with pytest.raises(MediaNotFound) as caught:
        fetch(job, storage, LIMIT)

    assert caught.value.field == "audio"


def test_a_file_over_the_limit_is_refused_whatever_the_message_says_of_its_size(storage: FolderStorage) -> None:
    stored = put(storage, media_files.wav(0.5))
    job = edit_of(stored.model_copy(update={"bytes": 1}))

    with pytest.raises(MediaTooLarge) as caught:
        fetch(job, storage, max_bytes=1000)

    assert caught.value.field == "audio"


def test_an_edit_takes_less_than_a_question(storage: FolderStorage) -> None:
    sound = put(storage, media_files.wav(3.0, 8_000))

    with pytest.raises(MediaTooLong) as caught:
        load(edit_of(sound), storage)

    assert caught.value.field == "audio"
    assert load(question_about(audio=sound), storage).seconds("audio") == pytest.approx(3.0)


def test_a_question_has_its_limit_too(storage: FolderStorage) -> None:
    with pytest.raises(MediaTooLong) as caught:
        load(question_about(audio=put(storage, media_files.wav(5.0, 8_000))), storage)

    assert caught.value.field == "audio"


def test_a_voice_may_be_longer_than_an_edit(storage: FolderStorage) -> None:
    voice = put(storage, media_files.wav(3.0, 8_000)).model_dump()

    media = load(job_of("generate", name="tts", text="Hello", ref=voice), storage)

    assert media.has("ref")
    assert not media.has("audio")


def three_hours() -> bytes:
    """A wav of silence at 4 kHz, 8 bits."""
    rate, size = 4_000, 3 * 3600 * 4_000
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate, 1, 8)
    return struct.pack("<4sI4s", b"RIFF", 36 + size, b"WAVE") + form + struct.pack("<4sI", b"data", size) + bytes(size)


def test_three_hours_are_refused_with_the_real_cards_limits(storage: FolderStorage) -> None:
    card = ModelCard(revision="1", licence="none", languages=("en",))
    sound = put(storage, three_hours())

    for job in (edit_of(sound), question_about(audio=sound)):
        with pytest.raises(MediaTooLong) as caught:
            load(job, storage, card)
        assert caught.value.field == "audio"


def test_samples_that_are_not_numbers_are_refused(storage: FolderStorage) -> None:
    samples = media_files.tone(0.5, 8_000)
    samples[0, 100] = np.nan

    with pytest.raises(MediaUnreadable, match="not numbers") as caught:
        load(edit_of(put(storage, media_files.encode("wav-float", samples, 8_000))), storage)

    assert caught.value.field == "audio"


@pytest.mark.parametrize(("data", "error"), [(b"", MediaEmpty), (b"no sound at all" * 99, MediaUnreadable)])
def test_what_is_no_sound_is_refused_with_its_field(
    storage: FolderStorage, data: bytes, error: type[MediaError]
) -> None:
    with pytest.raises(error) as caught:
        load(edit_of(put(storage, data)), storage)

    assert caught.value.field == "audio"


def test_channels_without_places_become_their_mean_at_the_rate_that_is_asked_for(storage: FolderStorage) -> None:
    samples = np.repeat(np.linspace(0.1, 0.8, 4, dtype=np.float32)[:, None], 48_000, axis=1)
    sound = put(storage, media_files.encode("wav-float", samples, 48_000))

    wave = load(edit_of(sound), storage).mono("audio", 44_100)

    assert wave.shape == (44_100,)
    assert wave.dtype == np.float32
    assert np.abs(wave[100:-100] - 0.45).max() < 1e-3


def test_recordings_keep_their_order(storage: FolderStorage) -> None:
    lengths = (0.5, 0.25, 0.75)
    files = [put(storage, media_files.wav(seconds, 16_000)).model_dump() for seconds in lengths]

    media = load(job_of("understand", name="caption", audio=files), storage)

    assert [len(wave) / 16_000 for wave in media.all_mono("audio", 16_000)] == list(lengths)


def test_a_film_is_watched_at_two_frames_a_second_and_heard_where_it_is_given_as_sound(
    storage: FolderStorage,
) -> None:
    film = put(storage, media_files.video(2.0, audio_rate=16_000))

    media = load(question_about(video=film, audio=film), storage)

    assert [len(frames) for frames in media.frames] == [4]
    assert media.seconds("audio") == pytest.approx(2.0, abs=0.2)


def test_a_film_that_is_too_long_to_watch_is_refused(storage: FolderStorage) -> None:
    card = CARD.model_copy(update={"max_watch_seconds": 1.0})

    with pytest.raises(MediaTooLong) as caught:
        load(question_about(video=put(storage, media_files.video(2.0))), storage, card)

    assert caught.value.field == "video"


def test_the_track_that_is_asked_for_is_heard_in_the_audio_and_not_in_the_voice(storage: FolderStorage) -> None:
    quiet, loud = (media_files.tone(0.5, 8_000, level=level) for level in (0.1, 0.4))
    film = put(storage, media_files.tracks(quiet, loud, rate=8_000)).model_dump()
    vc = {"name": "vc", "ref": film, "audio": film}
    message = {"schema_version": 3, "namespace": "generate", "task": vc, "audio_track": 1}

    media = load(read_job(message), storage)

    peaks = [np.abs(media.recording(field).samples).max() for field in ("audio", "ref")]
    assert peaks == pytest.approx([0.4, 0.1], abs=0.01)
