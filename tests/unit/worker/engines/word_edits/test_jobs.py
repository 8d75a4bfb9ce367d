"""Words edited and voices converted by a model that speaks beside a recogniser, from file to file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import (
    DeadlineExceeded,
    InvalidJob,
    JobCancelled,
    LanguageNotSupported,
    LicenceRefused,
    TaskNotSupported,
)
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engines.speech.engine import run_speech_model
from omnifleet_worker.engines.speech.recogniser import Recogniser
from omnifleet_worker.engines.speech.tasks import SpeechTasks
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.speech_edit.words import Word
from omnifleet_worker.settings import WorkerSettings
from support.data import media_files
from support.engines.running_engine import running
from support.speech.scripted_model import speech_card
from support.speech.tone_words import RATE, ToneRecogniser, ToneSpeech, heard, say

SAID = "hello my dear old friend how are you"


@dataclass
class Desk:
    """Runs one job after the other on a model that speaks."""

    storage: FolderStorage
    model: ToneSpeech = field(default_factory=ToneSpeech)
    recogniser: Recogniser | None = field(default_factory=ToneRecogniser)
    card: dict[str, Any] = field(default_factory=dict)
    most_text: int = 300

    @contextmanager
    def opened(self) -> Iterator[tuple[JobRunner, Engine]]:
        loaded = run_speech_model(self.model, speech_card(**self.card), most_text=self.most_text)
        tasks = loaded.model
        assert isinstance(tasks, SpeechTasks)
        with_ears = tasks if self.recogniser is None else tasks.with_recogniser(self.recogniser)
        with running(loaded) as engine:
            yield JobRunner(with_ears, self.storage, WorkerSettings()), engine

    def put(self, data: bytes) -> dict[str, Any]:
        return self.storage.put_input(self.storage.describe_input(io.BytesIO(data)), io.BytesIO(data)).model_dump()

    def job(self, namespace: str, task: dict[str, Any], **more: Any) -> Any:
        head = {"schema_version": 8, "model": "scripted-speech", "namespace": namespace, "seed": 3, "commercial": True}
        return read_job(head | {"task": task} | more)

    def run(self, job: Any, watch: Callable[[JobContext], None] = lambda context: None) -> tuple[JobResult, np.ndarray]:
        """The result, and its samples [n, channels] as float64, which holds every format's values."""
        with self.opened() as (runner, engine):
            context = JobContext(job, engine)
            watch(context)
            result = runner.run(context)
        if result.artifact is None:
            return result, np.zeros((0, 1))
        stored = self.storage.get(result.artifact.uri, max_bytes=10**8)
        return result, soundfile.read(io.BytesIO(stored), always_2d=True)[0]

    def edit(self, data: bytes, desc: str | None, **more: Any) -> tuple[JobResult, np.ndarray]:
        task = {"name": "speech", "audio": self.put(data), "desc": desc, **more.pop("task", {})}
        return self.run(self.job("edit", task, **more))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(FolderStorage(tmp_path))


def recording(
    text: str = SAID, format: str = "wav", rate: int = RATE, channels: int = 1, noise: float = 0.0, **voice: float
) -> bytes:
    """What is said, the channels of different level, with noise that no two samples share."""
    mono = say(text, rate, **voice)
    hiss = np.random.default_rng(1).standard_normal((channels, len(mono)))
    levels = np.linspace(1, 0.5, channels)[:, None]
    return media_files.encode(format, (levels * (mono + noise * hiss)).astype(np.float32), rate)


def read(data: bytes) -> np.ndarray:
    samples: np.ndarray = soundfile.read(io.BytesIO(data), always_2d=True)[0]
    return samples


def assert_rest_untouched(result: JobResult, edited: np.ndarray, source: np.ndarray) -> None:
    """Every sample outside the reported spans is the source's, bit for bit."""
    assert result.artifact is not None and result.edits
    rate = result.artifact.sample_rate
    there, here = [0], [0]
    for span in result.edits:
        there += [round(span.source_start * rate), round(span.source_end * rate)]
        here += [round(span.start * rate), round(span.end * rate)]
    kept = list(zip(pairwise([*there, len(source)]), pairwise([*here, len(edited)]), strict=True))[::2]
    for (begin, end), (first, last) in kept:
        np.testing.assert_array_equal(edited[first:last], source[begin:end])
    assert sum(end - begin for (begin, end), _ in kept) > len(source) / 3


@pytest.mark.parametrize(
    ("format", "rate", "channels"),
    [("wav", 8_000, 1), ("wav", 44_100, 2), ("wav-24", 48_000, 2), ("flac-24", 48_000, 2), ("wav-float", 16_000, 1)],
)
def test_a_word_is_said_in_its_place_and_all_else_is_the_sources_own(
    desk: Desk, format: str, rate: int, channels: int
) -> None:
    data = recording(format=format, rate=rate, channels=channels, noise=0.001)
    form = "flac" if format.startswith("flac") else "wav"

    result, edited = desk.edit(data, "replace 'dear' with 'good'", format=form)

    assert result.edits is not None and result.artifact is not None
    assert (result.artifact.sample_rate, result.artifact.channels) == (rate, channels)
    assert [(span.old, span.new) for span in result.edits] == [("dear", "good")]
    assert heard(edited.mean(axis=1), rate) == SAID.replace("dear", "good")
    assert result.warnings == ()
    assert_rest_untouched(result, edited, read(data))


@pytest.mark.parametrize(
    ("desc", "after"),
    [
        ("replace 'hello' with 'bye'", "bye my dear old friend how are you"),
        ("replace 'you' with 'bye'", "hello my dear old friend how are bye"),
        ("replace 'old friend' with 'good good friend'", "hello my dear good good friend how are you"),
        ("insert 'good' before 'old'", "hello my dear good old friend how are you"),
        ("insert 'bye' at the end", "hello my dear old friend how are you bye"),
        ("delete 'dear'", "hello my old friend how are you"),
        ("replace 'my' with 'good'; delete 'old'; insert 'bye' after 'you'", "hello good dear friend how are you bye"),
        ("hello my good old friend how are bye", "hello my good old friend how are bye"),
    ],
)
def test_words_are_replaced_inserted_and_deleted(desk: Desk, desc: str, after: str) -> None:
    data = recording(noise=0.0005)

    result, edited = desk.edit(data, desc)

    assert heard(edited[:, 0], RATE) == after
    assert_rest_untouched(result, edited, read(data))


def test_deleting_needs_no_model_at_all(desk: Desk) -> None:
    desk.edit(recording(), "delete 'dear'")

    assert desk.model.asked == []


def test_new_words_are_said_with_those_around_them_in_the_voice_of_the_recording(desk: Desk) -> None:
    desk.edit(recording("hello my dear old friend. how are you"), "replace 'dear' with 'good'", language="en")

    (asked,) = desk.model.asked
    assert (asked.text, asked.language) == ("hello my good old friend how are you.", "en")
    assert asked.voice is not None and asked.voice.text == SAID
    assert heard(asked.voice.wave, asked.voice.sample_rate) == SAID


def test_only_as_much_of_the_voice_is_sent_as_the_model_hears(desk: Desk) -> None:
    desk.card = {"voice_seconds": 1.3}

    desk.edit(recording(), "replace 'old' with 'good'")

    voice = desk.model.asked[0].voice
    assert voice is not None
    assert len(voice.wave) / voice.sample_rate <= 1.3
    assert heard(voice.wave, voice.sample_rate) == voice.text == "dear old friend"


def test_what_is_not_heard_as_it_was_asked_for_is_said_again_and_then_told(desk: Desk) -> None:
    def deaf(words: list[Word]) -> list[Word]:
        return [Word("bye" if word.text == "good" else word.text, word.start, word.end) for word in words]

    desk.recogniser = ToneRecogniser(deaf)

    result, edited = desk.edit(recording(), "replace 'dear' with 'good'")

    assert desk.model.texts == [*["hello my good old friend how are you."] * 2, "good."]
    assert len({one.seed for one in desk.model.asked[:2]}) == 2
    assert [("'good' was said" in one, "bye" in one) for one in result.warnings] == [(True, True)]
    assert heard(edited[:, 0], RATE) == SAID.replace("dear", "good")


def test_new_words_are_as_loud_as_those_around_them_in_each_channel(desk: Desk) -> None:
    data = recording(channels=2, level=0.02, format="wav-float")

    result, edited = desk.edit(data, "replace 'dear' with 'good'")

    assert result.edits is not None
    (span,) = result.edits
    new = edited[round(span.start * RATE) : round(span.end * RATE)]
    level = np.sqrt(np.square(new).mean(axis=0))
    around = np.sqrt(np.square(read(data)[round(0.2 * RATE) : round(0.5 * RATE)]).mean(axis=0))
    assert (np.abs(20 * np.log10(level / around)) < 4).all()


def test_another_pitch_is_brought_to_that_of_the_recording(desk: Desk) -> None:
    from omnifleet_worker.engines.speech.word_edits.voice_match import voice_pitch

    desk.model = ToneSpeech(pitch=135.0)

    result, edited = desk.edit(recording(), "replace 'dear' with 'good'")

    assert result.edits is not None
    (span,) = result.edits
    pitch = voice_pitch(edited[round(span.start * RATE) : round(span.end * RATE), 0], RATE)
    assert pitch is not None and abs(pitch - 120) < 4


def test_the_same_job_gives_the_same_samples(desk: Desk) -> None:
    data = recording(noise=0.002)

    first, second = (desk.edit(data, "replace 'dear' with 'good'")[1] for _ in range(2))

    assert np.array_equal(first, second)


def test_a_dry_run_says_nothing(desk: Desk) -> None:
    result, _ = desk.edit(recording(), "replace 'dear' with 'good'", task={"dry_run": True})

    assert result.plan is not None and result.text == SAID
    assert [(one.old, one.new) for one in result.plan.edits] == [("dear", "good")]
    assert abs(result.plan.edits[0].start - 0.96) < 0.05
    assert desk.model.asked == []


def test_words_are_named_by_their_seconds_too(desk: Desk) -> None:
    _, edited = desk.edit(recording(), None, task={"span": [0.96, 1.26], "text": "good"})

    assert heard(edited[:, 0], RATE) == SAID.replace("dear", "good")


@pytest.mark.parametrize(
    ("data", "desc", "error", "field"),
    [
        (recording(), "make it friendlier", InvalidJob, "desc"),
        (recording(), "replace 'nobody' with 'good'", InvalidJob, "desc"),
        (recording(), f"replace 'dear' with '{'good ' * 70}'", InvalidJob, "desc"),
        (media_files.encode("wav", np.zeros((1, RATE), np.float32), RATE), "delete 'dear'", InvalidJob, "audio"),
    ],
    ids=["free words", "not said", "too long", "silence"],
)
def test_what_cannot_be_done_is_an_error(
    desk: Desk, data: bytes, desc: str, error: type[Exception], field: str
) -> None:
    with pytest.raises(error) as raised:
        desk.edit(data, desc)

    assert getattr(raised.value, "field", None) == field
    assert desk.model.asked == []


def test_without_a_recogniser_the_task_is_refused_with_what_is_missing(desk: Desk) -> None:
    desk.recogniser = None

    with pytest.raises(TaskNotSupported, match="OMNIFLEET_RECOGNISER"):
        desk.edit(recording(), "delete 'dear'")


def test_the_recognisers_licence_and_languages_count(desk: Desk) -> None:
    closed = ToneRecogniser()
    closed.card = closed.card.model_copy(update={"licence": "CC BY-NC 4.0", "commercial_use": False})

    with pytest.raises(LanguageNotSupported):
        desk.edit(recording(), "delete 'dear'", language="ru")
    desk.recogniser = closed
    with pytest.raises(LicenceRefused, match="speech recogniser"):
        desk.edit(recording(), "delete 'dear'")
    desk.edit(recording(), "delete 'dear'", commercial=False)


def test_a_cancelled_edit_ends_while_its_words_are_said(desk: Desk) -> None:
    contexts: list[JobContext] = []
    desk.model = ToneSpeech(lambda text: contexts[0].cancel())
    job = desk.job("edit", {"name": "speech", "audio": desk.put(recording()), "desc": "replace 'dear' with 'good'"})

    with pytest.raises(JobCancelled):
        desk.run(job, contexts.append)

    assert len(desk.model.asked) == 1


def test_a_cancelled_edit_ends_between_two_parts_that_are_recognised(desk: Desk) -> None:
    contexts: list[JobContext] = []

    def cancel(words: list[Word]) -> list[Word]:
        contexts[0].cancel()
        return words

    desk.recogniser = recogniser = ToneRecogniser(cancel)
    long = " ".join([SAID] * 12)
    job = desk.job("edit", {"name": "speech", "audio": desk.put(recording(long)), "desc": "delete the first 'dear'"})

    with pytest.raises(JobCancelled):
        desk.run(job, contexts.append)

    assert recogniser.times == 1


def test_an_edit_that_is_late_ends(desk: Desk) -> None:
    job = desk.job("edit", {"name": "speech", "audio": desk.put(recording()), "desc": "replace 'dear' with 'good'"})

    with pytest.raises(DeadlineExceeded), desk.opened() as (runner, engine):
        runner.run(JobContext(job, engine, seconds_left=-1.0))


class TestVoiceConversion:
    def test_what_is_said_is_said_in_the_other_voice(self, desk: Desk) -> None:
        task = {"name": "vc", "audio": desk.put(recording()), "ref": desk.put(recording("you are good", pitch=150))}

        _, said = desk.run(desk.job("generate", task))

        assert heard(said[:, 0], RATE) == SAID
        (asked,) = desk.model.asked
        assert asked.voice is not None and asked.voice.text == "you are good"

    def test_a_long_recording_is_said_in_parts(self, desk: Desk) -> None:
        desk.most_text = 40
        long = " ".join([SAID] * 12)
        task = {"name": "vc", "audio": desk.put(recording(long)), "ref": desk.put(recording("you are good"))}

        _, said = desk.run(desk.job("generate", task))

        assert isinstance(desk.recogniser, ToneRecogniser) and desk.recogniser.times > 2
        assert len(desk.model.asked) > 5
        assert heard(said[:, 0], RATE) == long

    def test_a_text_is_not_heard_but_taken(self, desk: Desk) -> None:
        ref = desk.put(recording("you are good"))
        task = {"name": "vc", "audio": desk.put(recording()), "text": "bye", "ref": ref, "ref_text": "you are good"}

        desk.run(desk.job("generate", task))

        assert desk.model.texts == ["bye"]
        assert isinstance(desk.recogniser, ToneRecogniser) and desk.recogniser.times == 0

    def test_a_model_that_needs_the_words_of_a_voice_is_given_them(self, desk: Desk) -> None:
        desk.card = {"needs_transcript": True}
        task = {"name": "tts", "text": "bye", "ref": desk.put(recording("you are good"))}

        desk.run(desk.job("generate", task))

        voice = desk.model.asked[0].voice
        assert voice is not None and voice.text == "you are good"

    @pytest.mark.parametrize("field", ["audio", "ref"])
    def test_a_recording_without_words_is_an_error(self, desk: Desk, field: str) -> None:
        silence = media_files.encode("wav", np.zeros((1, RATE), np.float32), RATE)
        task = {"name": "vc", "audio": desk.put(recording()), "ref": desk.put(recording("you are good"))}

        with pytest.raises(InvalidJob, match="no words") as raised:
            desk.run(desk.job("generate", task | {field: desk.put(silence)}))

        assert raised.value.field == field
