"""Models that speak, on the step engine: what jobs get, whatever else is said, cancelled or fails meanwhile."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import (
    DeadlineExceeded,
    InvalidJob,
    JobCancelled,
    JobFailed,
    LanguageNotSupported,
    LicenceRefused,
    MediaTooLong,
    OmnifleetError,
    OutOfMemory,
    TaskNotSupported,
)
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.speech.engine import run_speech_model
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.parts.finished_parts import FinishedParts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.streaming.job_stream import JobStreams
from omnifleet_worker.local import PartLog
from omnifleet_worker.models.speech_model import SpeechInputs
from omnifleet_worker.settings import WorkerSettings
from support.engines.running_engine import running
from support.speech.scripted_model import PIECE, RATE, ScriptedSpeech, speech_card

TEXTS = {"ru": "Привет, мир.", "zh": "你好世界", "ar": "مرحبا بالعالم", "hi": "नमस्ते दुनिया"}


def inputs(text: str, seed: int = 7) -> SpeechInputs:
    return SpeechInputs(text=text, most_steps=500, seed=seed)


def said(text: str, seed: int = 7) -> np.ndarray:
    """What the model says alone."""
    return np.concatenate(list(ScriptedSpeech().speak(inputs(text, seed))))[None]


def read(storage: FolderStorage, uri: str) -> np.ndarray:
    samples: np.ndarray = soundfile.read(io.BytesIO(storage.get(uri, max_bytes=2**24)), dtype="int16")[0]
    return samples


def tts(text: str = "Hello.", *, seed: int = 7, **more: Any) -> Job:
    task = {"name": "tts", "text": text, **more.pop("task", {})}
    head = {"schema_version": 8, "model": "scripted-speech", "namespace": "generate"}
    return read_job(head | {"task": task, "seed": seed} | more)


def step_all(engine: Engine) -> None:
    while engine.step():
        pass


def engine_of(model: ScriptedSpeech) -> Engine:
    loaded = run_speech_model(model, speech_card())
    return Engine(loaded.runner, loaded.limits)


class TestOnTheEngine:
    def test_each_piece_is_a_step(self) -> None:
        engine = engine_of(ScriptedSpeech())
        request = engine.submit(Request(inputs=inputs("abc")))

        steps = []
        while engine.step():
            steps.append(request.step)

        assert sorted(set(steps)) == [1, 2, 3]
        assert np.array_equal(request.outcome.result(), said("abc"))

    @pytest.mark.parametrize("places", [1, 3])
    def test_mates_never_change_what_is_said(self, places: int) -> None:
        engine = engine_of(ScriptedSpeech(places))

        requests = [engine.submit(Request(inputs=inputs(text, seed))) for seed, text in enumerate(("abc", "de", "abc"))]
        step_all(engine)

        for seed, (request, text) in enumerate(zip(requests, ("abc", "de", "abc"), strict=True)):
            assert np.array_equal(request.outcome.result(), said(text, seed))

    def test_no_more_texts_are_said_at_once_than_there_are_places(self) -> None:
        model = ScriptedSpeech(places=2)
        engine = engine_of(model)
        requests = [engine.submit(Request(inputs=inputs(text))) for text in ("aaaa", "bbbb", "cccc")]

        engine.step(), engine.step()

        assert [request.step > 0 for request in requests] == [True, True, False]
        step_all(engine)
        assert requests[2].outcome.result().shape == (1, 4 * PIECE)

    def test_a_cancelled_text_is_said_no_further(self) -> None:
        model = ScriptedSpeech()
        engine = engine_of(model)
        request = engine.submit(Request(inputs=inputs("abcdefgh")))
        engine.step(), engine.step()

        request.cancel()
        step_all(engine)

        assert isinstance(request.outcome.exception(), JobCancelled)
        assert model.closed == ["abcdefgh"]

    def test_a_deadline_ends_a_text(self) -> None:
        engine = engine_of(ScriptedSpeech())
        request = engine.submit(Request(inputs=inputs("abcdefgh"), deadline=1.0))

        step_all(engine)

        assert isinstance(request.outcome.exception(), DeadlineExceeded)

    def test_a_text_that_fails_leaves_its_mates_alone(self) -> None:
        def fail(text: str) -> None:
            if "bad" in text:
                raise ValueError("no such row")

        engine = engine_of(ScriptedSpeech(2, fail))
        good, bad = (engine.submit(Request(inputs=inputs(text))) for text in ("good", "bad"))

        step_all(engine)

        assert np.array_equal(good.outcome.result(), said("good"))
        assert isinstance(bad.outcome.exception(), JobFailed)

    def test_a_text_that_found_no_memory_is_said_from_its_beginning_again(self) -> None:
        errors: list[Exception] = [OutOfMemory("none is left")]

        def run_out(text: str) -> None:
            if text == "abc" and errors and len(model.asked) > 1:
                raise errors.pop()

        model = ScriptedSpeech(2, run_out)
        engine = engine_of(model)
        other, parked = (engine.submit(Request(inputs=inputs(text))) for text in ("defghi", "abc"))

        step_all(engine)

        assert not errors
        assert np.array_equal(parked.outcome.result(), said("abc"))
        assert np.array_equal(other.outcome.result(), said("defghi"))

    @pytest.mark.parametrize("piece", [np.zeros(0, np.float32), np.full(9, np.nan, np.float32)], ids=["none", "nan"])
    def test_nothing_that_can_be_heard_is_an_error(self, piece: np.ndarray) -> None:
        class Silent(ScriptedSpeech):
            def speak(self, inputs: SpeechInputs) -> Iterator[np.ndarray]:
                yield piece

        engine = engine_of(Silent())
        request = engine.submit(Request(inputs=inputs("abc")))

        step_all(engine)

        assert isinstance(request.outcome.exception(), JobFailed)


Speak = Callable[..., tuple[np.ndarray, int, Any]]


@pytest.fixture
def model() -> ScriptedSpeech:
    return ScriptedSpeech()


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


@pytest.fixture
def speak(model: ScriptedSpeech, storage: FolderStorage) -> Speak:
    """Runs a job from its inputs to its stored result; gives samples [n, channels], rate and the result."""

    def run(job: Job, most_text: int = 300, **card: Any) -> tuple[np.ndarray, int, Any]:
        loaded = run_speech_model(model, speech_card(**card), most_text=most_text)
        with running(loaded) as engine:
            result = JobRunner(loaded.model, storage, WorkerSettings()).run(JobContext(job, engine))
        assert result.artifact is not None
        samples, rate = soundfile.read(io.BytesIO(storage.get(result.artifact.uri, max_bytes=2**24)), always_2d=True)
        return samples, rate, result

    return run


def recording(storage: FolderStorage, seconds: float) -> dict[str, Any]:
    wave, file = np.sin(np.arange(round(seconds * 8000)) / 9).astype(np.float32), io.BytesIO()
    soundfile.write(file, wave, 8000, format="WAV", subtype="FLOAT")
    return storage.put_input(storage.describe_input(file), file).model_dump()


class TestJobs:
    @pytest.mark.parametrize("language", TEXTS)
    def test_a_text_is_said_at_the_models_rate(self, speak: Speak, model: ScriptedSpeech, language: str) -> None:
        samples, rate, result = speak(tts(TEXTS[language], language=language))

        assert (rate, result.artifact.sample_rate, result.artifact.channels) == (RATE, RATE, 1)
        assert np.abs(samples.T - said(TEXTS[language])).max() < 1e-4
        assert (model.asked[0].text, model.asked[0].language) == (TEXTS[language], language)
        assert (result.model.name, result.model.licence) == ("scripted-speech", "Apache-2.0")

    def test_the_same_seed_says_the_same(self, speak: Speak) -> None:
        first, second, other = (speak(tts(seed=seed))[0] for seed in (1, 1, 2))

        assert np.array_equal(first, second)
        assert not np.array_equal(first, other)

    def test_all_parts_of_a_text_are_said_as_fast_as_is_asked(self, speak: Speak, model: ScriptedSpeech) -> None:
        paced = {"schema_version": 9, "task": {"speed": 2.0}}

        samples, _, _ = speak(tts("One two.", **paced), speed=True)
        speak(tts("One two. Three four.", **paced), most_text=12, speed=True)

        assert len(samples) == len("One two.") * PIECE // 2
        assert [one.speed for one in model.asked] == [2.0] * 3

    def test_a_text_takes_as_long_as_is_asked_if_it_is_said_in_one_go(
        self, speak: Speak, model: ScriptedSpeech
    ) -> None:
        paced = {"schema_version": 9, "task": {"seconds": 2.5}}

        speak(tts("One two.", **paced), most_text=12, timed=True)

        assert [one.seconds for one in model.asked] == [2.5]
        with pytest.raises(InvalidJob, match="more than 12 characters in parts"):
            speak(tts("One two. Three four.", **paced), most_text=12, timed=True)

    def test_a_long_text_is_said_in_parts_in_the_voice_of_the_first(self, speak: Speak, model: ScriptedSpeech) -> None:
        _, _, result = speak(tts("One two. Three four. Five six."), most_text=12)

        assert [one.text for one in model.asked] == ["One two.", "Three four.", "Five six."]
        assert model.asked[0].voice is None
        assert {one.voice.text for one in model.asked[1:] if one.voice} == {"One two."}
        assert result.artifact.seconds > len("OnetwoThreefourFivesix") * PIECE / RATE

    def test_a_long_text_goes_on_where_an_earlier_attempt_was(self, storage: FolderStorage) -> None:
        failing = [True]

        def step(text: str) -> None:
            if failing and text == "Three four.":
                raise OutOfMemory("none is left")

        model, settings, text = ScriptedSpeech(step=step), WorkerSettings(), "One two. Three four. Five six."
        job = tts(text)
        loaded, parts = run_speech_model(model, speech_card(), most_text=12), FinishedParts(storage, ("scripted",))
        with running(loaded) as engine:
            runner = JobRunner(loaded.model, storage, settings, parts)
            with pytest.raises(OutOfMemory):
                runner.run(JobContext(job, engine))
            failing.clear()
            model.asked.clear()
            result = runner.run(JobContext(job, engine, attempt=2))
            alone = JobRunner(loaded.model, storage, settings).run(JobContext(tts(text), engine))
        parts.close()

        assert [one.text for one in model.asked][:2] == ["Three four.", "Five six."]
        assert result.artifact is not None and alone.artifact is not None
        assert result.artifact.sha256 == alone.artifact.sha256

    def test_a_model_without_cloning_says_all_parts_as_it_speaks(self, speak: Speak, model: ScriptedSpeech) -> None:
        speak(tts("One two. Three four."), most_text=12, cloning=False)

        assert [one.voice for one in model.asked] == [None, None]

    def test_a_voice_comes_at_its_own_rate(self, speak: Speak, storage: FolderStorage, model: ScriptedSpeech) -> None:
        speak(tts(task={"ref": recording(storage, 2.0), "ref_text": "That is me."}))

        voice = model.asked[0].voice
        assert voice is not None
        assert (len(voice.wave), voice.sample_rate, voice.text) == (16_000, 8000, "That is me.")

    def test_of_a_long_voice_the_end_is_heard(
        self, speak: Speak, storage: FolderStorage, model: ScriptedSpeech
    ) -> None:
        speak(tts(task={"ref": recording(storage, 2.0)}), voice_seconds=0.5)

        voice = model.asked[0].voice
        assert voice is not None and len(voice.wave) == 4000

    def test_a_long_voice_with_its_words_is_refused(self, speak: Speak, storage: FolderStorage) -> None:
        with pytest.raises(MediaTooLong, match="ref"):
            speak(tts(task={"ref": recording(storage, 2.0), "ref_text": "All of it."}), voice_seconds=0.5)

    @pytest.mark.parametrize("text", ["One two. Three four. Five six.", "One two."])
    def test_a_streamed_texts_parts_are_its_result(
        self, model: ScriptedSpeech, storage: FolderStorage, text: str
    ) -> None:
        log, settings = PartLog(), WorkerSettings()
        loaded = run_speech_model(model, speech_card(), most_text=12)
        job = tts(text, stream=True)

        with running(loaded) as engine:
            runner = JobRunner(loaded.model, storage, settings, streams=JobStreams(storage, log, settings))
            result = runner.run(JobContext(job, engine))

        artifacts = [part.audio for part in log.read(job.job_id) if part.audio is not None]
        assert artifacts[0].seconds == 0.16
        assert len(artifacts) > text.count(".")
        assert result.artifact is not None and {one.sample_rate for one in artifacts} == {RATE}
        parts = [read(storage, one.uri) for one in artifacts]
        assert np.array_equal(np.concatenate(parts), read(storage, result.artifact.uri))

    @pytest.mark.parametrize(
        ("job", "card", "error"),
        [
            (tts(language="ja"), {}, LanguageNotSupported),
            (tts("Γειά σου κόσμε."), {}, LanguageNotSupported),
            (tts(commercial=True), {"commercial_use": False}, LicenceRefused),
            (tts("x" * 99), {"tasks": {"generate.tts": {"max_text": 98}}}, InvalidJob),
            (tts(format="mp3"), {"sample_rate": 16_000}, None),
            (
                read_job(
                    {"schema_version": 8, "model": "scripted-speech", "namespace": "generate"}
                    | {"task": {"name": "t2a", "text": "rain"}, "seed": 1}
                ),
                {},
                TaskNotSupported,
            ),
        ],
        ids=["language", "script", "licence", "length", "format", "task"],
    )
    def test_what_the_card_forbids_is_refused(
        self, speak: Speak, model: ScriptedSpeech, job: Job, card: dict[str, Any], error: type[OmnifleetError] | None
    ) -> None:
        if error is None:
            assert speak(job, **card)[1] == RATE
            return
        with pytest.raises(error):
            speak(job, **card)
        assert not model.asked
