"""Recognisers of transformers as an engine, with a tiny random Whisper and wav2vec2: what jobs get of recordings."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import (
    CheckpointInvalid,
    InvalidJob,
    LanguageNotSupported,
    LicenceRefused,
    OmnifleetError,
    OutOfMemory,
    TaskNotSupported,
)
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.recordings.recogniser import SpeechRecogniser, time_words
from omnifleet_worker.engines.table import load_model
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.parts.finished_parts import FinishedParts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.speech_edit.words import split_words
from omnifleet_worker.jobs.streaming.job_stream import JobStreams
from omnifleet_worker.local import PartLog
from omnifleet_worker.models.recording_model import RecordingInputs
from omnifleet_worker.settings import WorkerSettings
from support.engines.running_engine import fail_and_resume, running
from support.speech.recogniser_folders import LANGUAGES, write_tiny_wav2vec2, write_tiny_whisper

RATE = 16_000
Transcribe = Callable[..., JobResult]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("recognisers")
    return {
        "whisper": write_tiny_whisper(folder / "tiny-whisper"),
        "ctc": write_tiny_wav2vec2(folder / "tiny-ctc"),
        "untimed": write_tiny_whisper(folder / "tiny-untimed", licence="other", word_times=False),
    }


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[str, LoadedModel]:
    return {name: load_model(WorkerSettings(checkpoint=folder)) for name, folder in folders.items()}


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


def noise(*seconds: float) -> np.ndarray:
    """Bursts so long, with a second of silence behind each."""
    random = np.random.default_rng(1)
    bursts = [random.standard_normal(round(one * RATE), dtype=np.float32) / 10 for one in seconds]
    return np.concatenate([np.concatenate([burst, np.zeros(RATE, np.float32)]) for burst in bursts])


def transcription(storage: FolderStorage, wave: np.ndarray, name: str = "whisper", **more: Any) -> Job:
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format="WAV", subtype="PCM_16")
    media = storage.put_input(storage.describe_input(file), file).model_dump()
    task = {"name": "transcribe", "audio": [media], **more.pop("task", {})}
    return read_job({"schema_version": 8, "model": f"tiny-{name}", "namespace": "understand", "task": task} | more)


@pytest.fixture
def transcribe(loaded: dict[str, LoadedModel], storage: FolderStorage) -> Transcribe:
    """Runs a job from its recording to its result."""

    def run(wave: np.ndarray, name: str = "whisper", **more: Any) -> JobResult:
        with running(loaded[name]) as engine:
            job = transcription(storage, wave, name, **more)
            return JobRunner(loaded[name].model, storage, WorkerSettings()).run(JobContext(job, engine))

    return run


def test_its_card_is_that_of_the_hub(loaded: dict[str, LoadedModel]) -> None:
    whisper, untimed = loaded["whisper"].model.capabilities, loaded["untimed"].model.capabilities

    assert (whisper.name, whisper.engine, whisper.licence, whisper.commercial) == (
        *("tiny-whisper", "transformers", "mit"),
        True,
    )
    assert {name: task.languages for name, task in whisper.tasks.items()} == {"understand.transcribe": LANGUAGES}
    assert not untimed.commercial  # nobody knows the licence `other`


@pytest.mark.parametrize("name", ["whisper", "ctc"])
def test_a_long_recordings_words_come_with_their_times(transcribe: Transcribe, name: str) -> None:
    wave = noise(24, 20, 16)

    first, second = (transcribe(wave, name, task={"timestamps": "word"}) for _ in range(2))

    times = first.transcript
    assert times is not None and times.words
    assert times.seconds == 63.0
    assert [word.text for word in times.words] == split_words(first.text or "")
    assert times.words[-1].start > 40  # of the last part
    assert all(one.end <= other.start for one, other in pairwise(times.words))
    assert " ".join(one.text for one in times.segments) == first.text
    assert times.language == {"whisper": times.language, "ctc": None}[name]
    assert (first.text, first.transcript) == (second.text, second.transcript)


def test_the_language_that_was_heard_stands_in_the_result(transcribe: Transcribe) -> None:
    heard = transcribe(noise(24), task={"timestamps": "segment"}).transcript
    told = transcribe(noise(24), task={"timestamps": "segment"}, language="ru").transcript

    assert heard is not None and heard.language in LANGUAGES and heard.words is None
    assert told is not None and told.language == "ru"


def test_a_long_recording_is_heard_in_the_language_of_its_beginning(
    transcribe: Transcribe, loaded: dict[str, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str | None]()
    work = SpeechRecogniser.work

    def watched(model: SpeechRecogniser, inputs: RecordingInputs) -> str:
        asked.append(inputs.language)
        return work(model, inputs)

    monkeypatch.setattr(SpeechRecogniser, "work", watched)

    result = transcribe(noise(24, 20, 16), task={"timestamps": "segment"})

    assert result.transcript is not None
    assert asked == [None, *[result.transcript.language] * 2]


@pytest.mark.parametrize("task", [{}, {"timestamps": "segment"}, {"timestamps": "word"}])
def test_silence_says_nothing(transcribe: Transcribe, task: dict[str, str]) -> None:
    result = transcribe(np.zeros(5 * RATE, np.float32), task=task)

    assert result.text == ""
    assert result.transcript is None or (result.transcript.seconds, result.transcript.segments) == (5.0, ())


def test_a_model_without_times_has_segments_by_pauses(transcribe: Transcribe) -> None:
    result = transcribe(noise(2, 3), "untimed", task={"timestamps": "segment"})

    assert result.transcript is not None
    starts = [one.start for one in result.transcript.segments]
    assert starts == pytest.approx([0.0, 3.0], abs=0.2)
    with pytest.raises(TaskNotSupported, match="timestamps"):
        transcribe(noise(2), "untimed", task={"timestamps": "word"})


def test_a_later_attempt_goes_on_where_the_earlier_one_was(
    loaded: dict[str, LoadedModel], storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = transcription(storage, noise(24, 20, 16), task={"timestamps": "word"})

    made = fail_and_resume(loaded["whisper"], SpeechRecogniser, job, storage, monkeypatch)

    assert made.calls == 4  # two, one that failed, and the last alone
    assert (made.again.text, made.again.transcript) == (made.alone.text, made.alone.transcript)


@pytest.mark.parametrize("language", [None, "en"])
def test_a_streamed_transcript_is_given_out_stretch_by_stretch(
    transcribe: Transcribe, loaded: dict[str, LoadedModel], storage: FolderStorage, language: str | None
) -> None:
    wave, log, settings = noise(24, 20, 16), PartLog(), WorkerSettings()
    job = transcription(storage, wave, "untimed", stream=True, language=language)

    with running(loaded["untimed"]) as engine:
        runner = JobRunner(loaded["untimed"].model, storage, settings, streams=JobStreams(storage, log, settings))
        result = runner.run(JobContext(job, engine))

    texts = [part.text for part in log.read(job.job_id)]
    assert len(texts) == 3 and all(texts)
    assert "".join(map(str, texts)) == result.text == transcribe(wave, "untimed", language=language).text


def test_what_an_earlier_attempt_gave_out_is_not_given_out_again(
    transcribe: Transcribe,
    loaded: dict[str, LoadedModel],
    storage: FolderStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wave, log, settings = noise(24, 20, 16), PartLog(), WorkerSettings()
    whole, job = transcribe(wave, "untimed").text, transcription(storage, wave, "untimed", stream=True)
    work, failing = SpeechRecogniser.work, [True]

    def fail_at_the_last(recogniser: SpeechRecogniser, inputs: RecordingInputs) -> str:
        if failing and len(log.read(job.job_id)) == 2:
            raise OutOfMemory("none is left")
        return work(recogniser, inputs)

    monkeypatch.setattr(SpeechRecogniser, "work", fail_at_the_last)
    parts = FinishedParts(storage, ("tiny-untimed",))
    with running(loaded["untimed"]) as engine:
        streams = JobStreams(storage, log, settings)
        runner = JobRunner(loaded["untimed"].model, storage, settings, parts, streams)
        with pytest.raises(OutOfMemory):
            runner.run(JobContext(job, engine))
        before = list(log.read(job.job_id))
        failing.clear()
        result = runner.run(JobContext(job, engine, attempt=2))
    parts.close()

    after = list(log.read(job.job_id))
    assert (after[:2], len(after)) == (before, 3)
    assert "".join(str(part.text) for part in after) == result.text == whole


def test_a_transcript_with_times_comes_as_a_whole(loaded: dict[str, LoadedModel], storage: FolderStorage) -> None:
    log, settings = PartLog(), WorkerSettings()
    job = transcription(storage, noise(24, 20), stream=True, task={"timestamps": "segment"})

    with running(loaded["whisper"]) as engine:
        runner = JobRunner(loaded["whisper"].model, storage, settings, streams=JobStreams(storage, log, settings))
        result = runner.run(JobContext(job, engine))

    assert log.read(job.job_id) == [] and result.transcript is not None


@pytest.mark.parametrize(
    ("name", "more", "error"),
    [
        ("whisper", {"language": "fr"}, LanguageNotSupported),
        ("whisper", {"task": {"text": "Names in it"}}, InvalidJob),
        ("whisper", {"task": {"name": "caption"}}, TaskNotSupported),
        ("untimed", {"commercial": True}, LicenceRefused),
    ],
    ids=["language", "context", "task", "licence"],
)
def test_what_it_cannot_do_is_refused(
    transcribe: Transcribe, name: str, more: dict[str, Any], error: type[OmnifleetError]
) -> None:
    with pytest.raises(error):
        transcribe(noise(1), name, **more)


@pytest.mark.parametrize("missing", ["README.md", "model.safetensors", "preprocessor_config.json"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, missing: str) -> None:
    folder = write_tiny_whisper(tmp_path)
    (folder / missing).unlink()

    with pytest.raises(CheckpointInvalid):
        load_model(WorkerSettings(checkpoint=folder))


def test_pieces_become_the_words_of_their_text() -> None:
    pieces = [(" Hel", 0.5, 0.7), ("lo,", 0.7, 1.0), (" 你好", 1.0, 2.0), (" you", 2.0, None)]

    words = time_words(pieces, 3.0)

    assert [(word.text, word.start, word.end) for word in words] == [
        ("Hello,", 0.5, 1.0),
        ("你", 1.0, 1.5),
        ("好", 1.5, 2.0),
        ("you", 2.0, 3.0),
    ]


@given(
    st.lists(
        st.tuples(st.text(" ab,é你'", max_size=6), *[st.none() | st.floats(0, 9)] * 2),
        max_size=8,
    )
)
def test_words_are_in_order_whatever_times_their_pieces_have(
    pieces: list[tuple[str, float | None, float | None]],
) -> None:
    words = time_words(pieces, 5.0)

    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert all(0 <= edge <= 5 for edge in edges)
    assert [word.text for word in words] == split_words("".join(piece for piece, _, _ in pieces))
