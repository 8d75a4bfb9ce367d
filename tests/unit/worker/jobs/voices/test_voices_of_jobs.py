"""A voice is fetched, decoded and listened to once, by one of all workers; and never again once it was removed."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omnifleet.voices import Voices
from omnifleet_shared.errors import StorageUnavailable, VoiceNotFound
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.settings import FleetSettings
from omnifleet_shared.storage import FolderStorage, StoredObject
from omnifleet_shared.storage.voices import VoiceFiles
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.jobs.voices.kept_voices import KeptVoice
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.audio_omni.tiny import tiny_vocab
from omnifleet_worker.settings import WorkerSettings
from support.data import media_files

SENTENCES = {"system": {"TTS": "Speak."}, "transcribe": {"system": "Write.", "user": "Every word."}}
RECORDING = media_files.wav(7.3, 48_000, 2)


class Storage(FolderStorage):
    """Counts what is read, and may fail to write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.opened: list[str] = []
        self.before_put: Callable[[str], None] = lambda key: None

    def open(self, uri: str, *, start: int = 0) -> Any:
        self.opened.append(self.key(uri))
        return super().open(uri, start=start)

    def put(self, key: str, source: Any, **kwargs: Any) -> StoredObject:
        self.before_put(key)
        return super().put(key, source, **kwargs)


class Engine:
    """Hears the same in every voice, and gives every clip the same samples."""

    def __init__(self) -> None:
        self.asked: list[ChatInputs] = []
        self.spoken: list[DiffusionInputs] = []

    def submit(self, request: Request) -> Request:
        if isinstance(request.inputs, ChatInputs):
            self.asked.append(request.inputs)
            request.outcome.set_result("Good morning")
        else:
            self.spoken.append(request.inputs)
            request.outcome.set_result(np.ones((2, CLIP_SAMPLES), np.float32))
        return request

    def least_seconds(self, *_: object) -> float:
        return 0.0


class Worker:
    def __init__(self, storage: Storage, revision: str = "1") -> None:
        card = ModelCard(revision=revision, licence="none", languages=("en",))
        model = OmniModel(card=card, prompts=Prompts(SENTENCES), tokenizer=SpeechTokenizer(tiny_vocab()))
        self._runner = JobRunner(model, storage, WorkerSettings())
        self.engine = Engine()

    def speak(self, ref: Media, **task: Any) -> DiffusionInputs:
        fields = {"name": "tts", "text": "Hello", "ref": ref.model_dump(), **task}
        job = read_job({"schema_version": 1, "namespace": "generate", "task": fields, "seed": 1})
        self._runner.run(JobContext(job, self.engine))  # type: ignore[arg-type]
        return self.engine.spoken[-1]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(tmp_path)


@pytest.fixture
def anna(storage: Storage) -> Media:
    voice = Voices(FleetSettings(), storage).add("anna", RECORDING, consent="a contract")
    return VoiceFiles(storage).media(voice)


def voices(storage: Storage) -> Voices:
    return Voices(FleetSettings(), storage)


def kept(storage: Storage) -> list[str]:
    return [found.uri for found in storage.list("voices/files/") if "." in found.uri.rpartition("/")[2]]


def test_it_sounds_as_the_recording_itself_does(storage: Storage, anna: Media) -> None:
    plain = storage.put_input(storage.describe_input(io.BytesIO(RECORDING)), io.BytesIO(RECORDING))

    expected = Worker(storage).speak(plain)
    spoken = [worker.speak(anna) for worker in (Worker(storage), Worker(storage))]

    assert expected.audio is not None and len(expected.audio) == 6 * 44_100
    for inputs in spoken:
        assert inputs.speech == expected.speech == "Good morning. Hello"
        np.testing.assert_array_equal(inputs.audio, expected.audio)  # type: ignore[arg-type]


def test_one_worker_reads_and_hears_it_once(storage: Storage, anna: Media) -> None:
    worker = Worker(storage)

    for _ in range(3):
        worker.speak(anna)

    assert len(worker.engine.asked) == 1
    assert storage.opened.count(storage.key(anna.uri)) == 1


def test_another_worker_takes_over_what_is_kept(storage: Storage, anna: Media) -> None:
    Worker(storage).speak(anna)
    storage.opened.clear()
    other = Worker(storage)

    for _ in range(2):
        other.speak(anna)

    assert other.engine.asked == []
    assert len(storage.opened) == 1 and storage.uri(storage.opened[0]) in kept(storage)


def test_another_revision_hears_for_itself(storage: Storage, anna: Media) -> None:
    Worker(storage).speak(anna)
    other = Worker(storage, revision="2")

    other.speak(anna)

    assert len(other.engine.asked) == 1
    assert len(kept(storage)) == 2


def test_words_that_were_given_are_not_taken_for_what_was_heard(storage: Storage, anna: Media) -> None:
    worker = Worker(storage)

    first, second = worker.speak(anna, ref_text="Good evening"), worker.speak(anna)

    assert (first.speech, second.speech) == ("Good evening. Hello", "Good morning. Hello")
    assert Worker(storage).speak(anna).speech == "Good morning. Hello"
    assert len(worker.engine.asked) == 1


def test_a_damaged_one_is_made_again(storage: Storage, anna: Media) -> None:
    Worker(storage).speak(anna)
    (uri,) = kept(storage)
    data = storage.get(uri, max_bytes=10**7)
    storage.put(storage.key(uri), io.BytesIO(data[:-1] + b"\0"), content_type="x/y")
    other = Worker(storage)

    other.speak(anna)

    assert len(other.engine.asked) == 1
    assert storage.get(uri, max_bytes=10**7) == data


def test_a_removed_voice_speaks_no_more_even_where_it_is_in_memory(storage: Storage, anna: Media) -> None:
    workers = [Worker(storage), Worker(storage)]
    workers[0].speak(anna)

    voices(storage).remove("anna")

    for worker in workers:
        with pytest.raises(VoiceNotFound, match="the voice 'anna' was removed") as missing:
            worker.speak(anna)
        assert missing.value.field == "ref"
    assert list(storage.list("voices/")) == []


def test_one_that_is_removed_while_a_job_speaks_leaves_nothing(storage: Storage, anna: Media) -> None:
    def remove(key: str) -> None:
        if key.startswith(storage.key(anna.uri)):
            storage.before_put = lambda _: None
            voices(storage).remove("anna")

    storage.before_put = remove

    Worker(storage).speak(anna)

    assert list(storage.list("voices/")) == []


def test_where_it_cannot_be_stored_it_is_kept_in_the_worker(
    storage: Storage, anna: Media, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(key: str) -> None:
        if key.startswith("voices/"):
            raise StorageUnavailable("away", "storage")

    storage.before_put = fail
    worker = Worker(storage)

    for _ in range(2):
        worker.speak(anna)

    assert len(worker.engine.asked) == 1
    assert kept(storage) == []
    assert [record.action for record in caplog.records if hasattr(record, "action")] == ["voice_not_kept"]


@pytest.mark.parametrize("text", [None, "", "Grüße\n你好"])
def test_what_is_written_is_read_back(text: str | None) -> None:
    wave = np.random.default_rng(1).standard_normal(1000).astype(np.float32)
    data = KeptVoice(wave, text).encode("a")

    read = KeptVoice.decode(data, "a")

    assert read is not None and read.text == text
    np.testing.assert_array_equal(read.wave, wave)
    assert KeptVoice.decode(data, "b") is None
    assert all(KeptVoice.decode(data[:size], "a") is None for size in range(0, len(data), 97))
