"""Every task through the front door: a client, a real Redis, a real S3 API, a real worker process."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omnifleet import AnswerUnreadable, AudioResult, Client, FleetSettings, InvalidJob, JobHandle, JobStatus, TextResult
from support.data import media_files

STEPS = 3
WAIT = 240.0
SOURCE_SECONDS = 1.5
SOUND = media_files.wav(SOURCE_SECONDS, 16_000)
VOICE = media_files.wav(2.0, 44_100)

TEXTS = ["transcribe", "caption"]
RECORDS = ["classify", "sources", "scene", "speakers", "gender", "sarcasm", "feedback"]
GENERATE: dict[str, Callable[[Client], JobHandle[AudioResult]]] = {
    "t2a": lambda omni: omni.generate("t2a", "a dog barks", seconds=2.5, steps=STEPS),
    "t2m": lambda omni: omni.generate("T2M", "a calm piano", seconds=2.5, steps=STEPS),
    "tts": lambda omni: omni.generate("TTS", "Hello world", steps=STEPS),
    "tts with a voice": lambda omni: omni.generate("tts", "Hello", ref=VOICE, ref_text="Good day.", steps=STEPS),
    "tts with a voice to transcribe": lambda omni: omni.generate("tts", "你好", ref=VOICE, steps=STEPS),
    "vc of a text": lambda omni: omni.generate("vc", "Hello", ref=VOICE, ref_text="Good day", steps=STEPS),
}
EDIT: dict[str, Callable[[Client], JobHandle[AudioResult]]] = {
    "add": lambda omni: omni.edit("Add", SOUND, desc="rain", steps=STEPS),
    "remove": lambda omni: omni.edit("remove", SOUND, desc="wind", steps=STEPS),
    "extract": lambda omni: omni.edit("EXTRACT", SOUND, desc="voice", steps=STEPS),
    "style": lambda omni: omni.edit("Style Transfer", SOUND, source="guitar", target="sax", steps=STEPS),
}


def samples(result: AudioResult) -> np.ndarray:
    return soundfile.read(io.BytesIO(result.audio.read()), always_2d=True)[0]


@pytest.mark.parametrize("task", TEXTS)
def test_a_named_question_is_answered_with_text(omni: Client, task: str) -> None:
    result = omni.understand(task, SOUND, max_new_tokens=4).result(WAIT)

    assert isinstance(result, TextResult)
    assert result.task == task
    assert 0 < len(result.text) <= 8


@pytest.mark.parametrize("task", RECORDS)
def test_random_letters_are_no_record_and_are_given_back_as_they_are(omni: Client, task: str) -> None:
    with pytest.raises(AnswerUnreadable) as caught:
        omni.understand(task, SOUND, max_new_tokens=4).result(WAIT)

    assert caught.value.details.keys() == {"text", "repair"}
    assert 0 < len(caught.value.details["text"]) <= 8


@pytest.mark.parametrize(
    "ask",
    [
        lambda omni: omni.understand("What is a fugue?", max_new_tokens=4),
        lambda omni: omni.understand("Which one is louder?", [SOUND, VOICE], max_new_tokens=4),
        lambda omni: omni.understand("What happens?", SOUND, video=media_files.video(1.0), max_new_tokens=4),
        lambda omni: omni.understand("caption", video=media_files.video(1.0), max_new_tokens=4),
        lambda omni: omni.understand("qa", SOUND, text="Who speaks?", system="Be brief.", max_new_tokens=4),
    ],
    ids=["text alone", "two recordings", "sound and video", "video alone", "qa"],
)
def test_text_audio_and_video_are_understood_in_any_mix(
    omni: Client, ask: Callable[[Client], JobHandle[TextResult]]
) -> None:
    assert ask(omni).result(WAIT).text


@pytest.mark.parametrize("task", GENERATE)
def test_generation_makes_audio_that_can_be_played(omni: Client, task: str) -> None:
    result = GENERATE[task](omni).result(WAIT)

    audio = result.audio
    data = audio.read()
    assert hashlib.sha256(data).hexdigest() == audio.sha256
    assert samples(result).shape == (round(audio.seconds * 44_100), 2)
    assert np.abs(samples(result)).max() > 0.01
    if task in ("t2a", "t2m"):
        assert audio.seconds == 2.5


@pytest.mark.parametrize("task", EDIT)
def test_an_edit_is_as_long_as_its_source(omni: Client, task: str) -> None:
    result = EDIT[task](omni).result(WAIT)

    assert result.audio.seconds == pytest.approx(SOURCE_SECONDS, abs=1e-3)


def test_a_video_gets_sound_as_long_as_it_is(omni: Client) -> None:
    result = omni.generate("v2a", "waves", video=media_files.video(1.2), steps=1).result(WAIT)

    assert result.audio.seconds == pytest.approx(1.2, abs=0.05)
    assert result.video is None


def test_new_sound_is_put_under_the_video(omni: Client, tmp_path: Path) -> None:
    result = omni.generate("v2m", "piano", video=media_files.video(1.2), seconds=1, steps=1, mux=True).result(WAIT)

    assert result.video is not None
    assert result.video.save(tmp_path / "film.mp4").stat().st_size == result.video.bytes
    assert result.audio.seconds == 1


def test_long_music_is_made_in_windows(omni: Client) -> None:
    result = omni.generate("t2m", "a calm piano", seconds=12.5, steps=1).result(180)

    assert result.audio.seconds == 12.5


def test_a_long_source_is_edited_in_windows(omni: Client) -> None:
    result = omni.edit("add", media_files.wav(12.5, 16_000), desc="rain", steps=1).result(180)

    assert result.audio.seconds == pytest.approx(12.5, abs=1e-3)


def test_words_are_looked_for_in_what_the_model_hears(omni: Client) -> None:
    job = omni.edit("Speech", SOUND, desc="replace 'hello' with 'goodbye'", steps=1)

    # A model with random weights hears random letters: the word is not among them, and what was heard is told.
    with pytest.raises(InvalidJob, match="hello") as refusal:
        job.result(5 * WAIT)
    assert refusal.value.details["heard"]


def test_speech_is_converted_by_what_the_model_hears(omni: Client) -> None:
    job = omni.generate("vc", ref=media_files.wav(0.5), ref_text="Go", audio=media_files.wav(0.5), steps=STEPS)

    # A model with random weights hears random letters, which may be more than a clip has room for.
    try:
        assert job.result(WAIT).audio.seconds > 0
    except InvalidJob as error:
        assert error.field == "audio"
        assert "to say" in error.problem


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg"])
def test_audio_comes_in_the_format_that_was_asked_for(omni: Client, form: str) -> None:
    result = omni.generate("t2a", "a bell", seconds=1, steps=1, format=form).result(WAIT)

    info = soundfile.info(io.BytesIO(result.audio.read()))
    container = {"mp3": "MP3", "wav": "WAV", "flac": "FLAC", "ogg": "OGG"}[form]
    assert (info.format, info.samplerate, info.channels) == (container, 44_100, 2)


@pytest.mark.parametrize("form", ["wav-24", "wav-float", "flac", "mp3", "ogg", "opus", "m4a", "aac", "webm", "mov"])
def test_sources_come_in_any_common_format(omni: Client, form: str) -> None:
    source = media_files.encode(form, media_files.tone(1.0, 48_000, 2), 48_000)

    result = omni.edit("add", source, desc="rain", steps=1).result(WAIT)

    assert result.audio.seconds == pytest.approx(1.0, abs=0.1)


def test_a_film_is_a_source_too(omni: Client) -> None:
    film = media_files.video(1.0, audio_rate=48_000)

    result = omni.edit("add", film, desc="rain", steps=1).result(WAIT)

    assert result.audio.seconds == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (96_000, 8)])
def test_odd_rates_and_many_channels_are_fine(omni: Client, rate: int, channels: int) -> None:
    result = omni.edit("add", media_files.wav(1.0, rate, channels), desc="rain", steps=1).result(WAIT)

    assert result.audio.seconds == pytest.approx(1.0, abs=1e-3)


def test_the_result_tells_how_it_came_about(omni: Client) -> None:
    before = datetime.now(UTC)

    job = omni.edit("add", SOUND, desc="rain", steps=STEPS)
    result = job.result(WAIT)

    assert result.model.name == "audio-omni-tiny"
    assert result.model.licence
    assert result.attempts == 1
    assert 0 <= result.seed < 2**32
    spent = result.timings.model_dump()
    assert all(spent[stage] > 0 for stage in ("fetched", "decoded", "conditioned", "sampled", "encoded", "stored"))
    assert sum(spent.values()) < (datetime.now(UTC) - before).total_seconds() + 1
    assert job.status() is JobStatus.SUCCEEDED


def test_the_link_works_without_credentials(omni: Client) -> None:
    result = omni.generate("t2a", "a bell", seconds=1, steps=1).result(WAIT)

    for url in (result.audio.url, result.record.artifact.url):
        with urllib.request.urlopen(url, timeout=60) as answer:
            assert answer.read() == result.audio.read()
            assert answer.headers["Content-Type"] == "audio/wav"
            assert answer.headers["Content-Disposition"] == 'inline; filename="t2a-a-bell.wav"'


def test_the_same_seed_gives_the_same_samples_alone_or_in_a_crowd(omni: Client) -> None:
    alone = omni.generate("t2a", "a bell", seconds=2, steps=STEPS, seed=7).result(WAIT)

    crowd = [omni.generate("t2m", f"piece {n}", seconds=2, steps=STEPS + n) for n in range(4)]
    again = omni.generate("t2a", "a bell", seconds=2, steps=STEPS, seed=7).result(WAIT)
    other = omni.generate("t2a", "a bell", seconds=2, steps=STEPS, seed=8).result(WAIT)
    for job in crowd:
        job.result(WAIT)

    assert np.abs(samples(alone) - samples(again)).max() < 1e-2
    assert np.abs(samples(alone) - samples(other)).max() > 0.1


def test_another_process_finds_the_job_by_its_id(omni: Client, settings: FleetSettings) -> None:
    job_id = omni.generate("t2a", "a bell", seconds=1, steps=1).id

    with Client(settings) as other:
        assert other.job(job_id).result(WAIT).job_id == job_id


def test_the_same_bytes_are_uploaded_once(omni: Client, settings: FleetSettings) -> None:
    first = omni.edit("add", SOUND, desc="rain", steps=1)
    stored = omni._storage.stat(omni._storage.describe_input(io.BytesIO(SOUND)).uri)
    second = omni.edit("remove", SOUND, desc="rain", steps=1)

    assert stored is not None
    assert omni._storage.stat(stored.uri) == stored
    first.result(WAIT), second.result(WAIT)
