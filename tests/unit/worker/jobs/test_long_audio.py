"""Jobs of several windows: a model that gives back what it hears, and the tiny checkpoint from file to file."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import DeadlineExceeded, JobCancelled, JobFailed, MediaTooLong
from omnifleet_shared.keys import JOB_SCHEMA_VERSION
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.results import JobResult, Progress
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import DiffusionInputs, Request
from omnifleet_worker.jobs.inputs import JobMedia
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.parts.requests_in_turn import AT_ONCE_UNKEPT
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.sound_edit.sound_editor import EditedSound
from omnifleet_worker.jobs.tasks import OmniModel, run_task
from omnifleet_worker.media.decode import DecodedAudio
from omnifleet_worker.media.video import DecodedVideo
from omnifleet_worker.model_loader import describe
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.settings import WorkerSettings
from support.data import media_files

RATE = 44_100
PROMPT = 441_000
FILE = {"uri": "file:///storage/x"}
CLIPS_AT_ONCE = AT_ONCE_UNKEPT["diffusion"]
ADD = {"name": "add", "audio": FILE, "desc": "rain"}
PEAK = ADD | {"loudness": "peak"}


@pytest.fixture(scope="module")
def tiny() -> AudioOmniRunner:
    return AudioOmniRunner(tiny_pipeline())


@pytest.fixture(scope="module")
def model(tiny: AudioOmniRunner) -> OmniModel:
    return describe(tiny.pipeline)


class EchoRunner:
    """A model that says what it hears with a peak of 1, and noise where it hears nothing."""

    def __init__(self) -> None:
        self.prepared: list[Request] = []
        self.batches: list[list[Request]] = []
        self.endless = False
        self.adds: np.ndarray | None = None
        self.on_prepare: Callable[[Request], None] = lambda request: None
        self.on_step: Callable[[], object] = lambda: None
        self.on_finish: Callable[[], object] = lambda: None

    def prepare(self, request: Request) -> None:
        self.prepared.append(request)
        self.on_prepare(request)

    def advance(self, batch: Sequence[Request]) -> None:
        self.batches.append(list(batch))
        for one in batch:
            one.step += 1
        self.on_step()

    def is_done(self, request: Request) -> bool:
        return not self.endless and request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        self.on_finish()
        return [said(one, self.adds) for one in batch]

    def release(self, request: Request) -> None:
        pass


def said(request: Request, adds: np.ndarray | None = None) -> np.ndarray:
    assert isinstance(request.inputs, DiffusionInputs)
    clip = np.zeros((2, CLIP_SAMPLES), np.float32)
    heard = request.inputs.audio
    clip += noise(CLIP_SAMPLES, request.inputs.seed) if heard is None else np.pad(heard, (0, CLIP_SAMPLES - len(heard)))
    if adds is not None:
        clip[:, : len(adds)] += adds
    return clip / np.abs(clip).max()


class GatedEngine(Engine):
    """An engine that takes its first step when so many requests are in it."""

    def __init__(self, runner: Any, *, waits_for: int = 1) -> None:
        super().__init__(runner, EngineLimits(clips=16, chats=16))
        self.submitted: list[Request] = []
        self.most_at_once = 0
        self._waits_for = waits_for
        self._gate = threading.Event()

    def submit(self, request: Request) -> Request:
        self.most_at_once = max(self.most_at_once, 1 + sum(not one.outcome.done() for one in self.submitted))
        self.submitted.append(request)
        if len(self.submitted) >= self._waits_for:
            self._gate.set()
        return super().submit(request)

    def step(self) -> bool:
        return self._gate.wait(timeout=0.1) and super().step()


@contextmanager
def running(runner: Any, *, waits_for: int = 1) -> Iterator[GatedEngine]:
    engine = GatedEngine(runner, waits_for=waits_for)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


@pytest.fixture
def runner() -> EchoRunner:
    return EchoRunner()


def job_of(namespace: str, task: dict[str, Any], **fields: Any) -> Job:
    fields = {"schema_version": JOB_SCHEMA_VERSION, "steps": 3, "seed": 7, **fields}
    return read_job({"namespace": namespace, "task": task, **fields})


def music(seconds: float = 25.0, **fields: Any) -> Job:
    return job_of("generate", {"name": "t2m", "text": "a waltz", "seconds": seconds}, **fields)


def noise(samples: int, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((channels, samples), dtype=np.float32)


def media(samples: np.ndarray) -> JobMedia:
    return JobMedia({"audio": (DecodedAudio(samples, RATE),)}, ())


def inputs_of(request: Request) -> DiffusionInputs:
    assert isinstance(request.inputs, DiffusionInputs)
    return request.inputs


def clip_of(outcome: object) -> np.ndarray:
    if isinstance(outcome, EditedSound):
        return outcome.samples
    assert isinstance(outcome, np.ndarray)
    return outcome


class TestGeneration:
    @pytest.mark.parametrize("seconds", [0.5, 10.0, 10.9])
    def test_one_window_is_the_models_clip_to_the_bit(
        self, runner: EchoRunner, model: OmniModel, seconds: float
    ) -> None:
        with running(runner) as engine:
            clip = clip_of(run_task(JobContext(music(seconds), engine), JobMedia({}, ()), model))

        (request,) = engine.submitted
        assert (inputs_of(request).seed, inputs_of(request).audio) == (7, None)
        assert np.array_equal(clip, request.outcome.result()[:, : round(seconds * RATE)])

    @pytest.mark.parametrize(("seconds", "windows"), [(11.0, 2), (25.0, 3), (61.3, 7)])
    def test_each_later_window_goes_on_from_the_one_before(
        self, runner: EchoRunner, model: OmniModel, seconds: float, windows: int
    ) -> None:
        with running(runner) as engine:
            clip = clip_of(run_task(JobContext(music(seconds), engine), JobMedia({}, ()), model))

        assert clip.shape == (2, round(seconds * RATE))
        assert [inputs_of(one).seed for one in engine.submitted] == list(range(7, 7 + windows))
        for before, after in pairwise(engine.submitted):
            heard = inputs_of(after).audio
            assert heard is not None
            np.testing.assert_allclose(heard, before.outcome.result()[:, :PROMPT].mean(axis=0), atol=1e-6)
        assert engine.most_at_once == 1

    def test_music_for_a_video_goes_on_with_the_same_frames(self, runner: EchoRunner, model: OmniModel) -> None:
        frames = np.zeros((250, 224, 224, 3), np.uint8)
        job = job_of("generate", {"name": "v2m", "video": FILE, "seconds": 12})

        with running(runner) as engine:
            clip = clip_of(run_task(JobContext(job, engine), JobMedia({}, (DecodedVideo(frames, 25.0, 10.0),)), model))

        assert clip.shape == (2, 12 * RATE)
        assert [inputs_of(one).video is frames for one in engine.submitted] == [True, True]


MONO_WEIGHTS = {1: [1], 2: [0.5, 0.5], 6: [0.5**0.5, 0.5**0.5, 1, 0, 0.5, 0.5]}
"""What each channel counts in what the model hears, by their number; those of 5.1 are of ITU-R BS.775."""


class TestEdit:
    @pytest.mark.parametrize("samples", [1, 3 * RATE, PROMPT])
    def test_by_peak_one_window_is_the_models_clip_to_the_bit(
        self, runner: EchoRunner, model: OmniModel, samples: int
    ) -> None:
        source = noise(samples)

        with running(runner) as engine:
            clip = clip_of(run_task(JobContext(job_of("edit", PEAK), engine), media(source), model))

        (request,) = engine.submitted
        assert np.array_equal(inputs_of(request).audio, source[0])
        assert np.array_equal(clip, request.outcome.result()[:, :samples])

    @pytest.mark.parametrize(("samples", "channels"), [(PROMPT + 1, 1), (1_031_947, 1), (1_031_947, 2), (2_000_003, 6)])
    def test_by_peak_several_windows_are_one_with_a_peak_of_1(
        self, runner: EchoRunner, model: OmniModel, samples: int, channels: int
    ) -> None:
        # A source that swells, so that every window comes back at another level.
        source = noise(samples, channels=channels) * np.linspace(0.01, 0.2, samples, dtype=np.float32)

        with running(runner) as engine:
            clip = clip_of(run_task(JobContext(job_of("edit", PEAK), engine), media(source), model))

        heard = np.array(MONO_WEIGHTS[channels]) @ source
        assert clip.shape == (2, samples)
        np.testing.assert_allclose(clip, np.stack([heard, heard]) / np.abs(heard).max(), atol=1e-5)

    @pytest.mark.parametrize("name", ["add", "remove", "extract", "style"])
    @pytest.mark.parametrize("depth", [16, 24])
    @pytest.mark.parametrize(("samples", "channels"), [(1, 2), (2 * RATE, 1), (2 * RATE, 2), (1_031_947, 2)])
    def test_a_model_that_changes_nothing_gives_the_source_back_bit_for_bit(
        self, runner: EchoRunner, model: OmniModel, samples: int, channels: int, depth: int, name: str
    ) -> None:
        # Stereo that is no mono in two channels, and swells.
        swelling = 0.2 * noise(samples, channels=channels) * np.linspace(0.01, 1, samples, dtype=np.float32)
        source = (np.rint(swelling.clip(-1, 0.99) * 2 ** (depth - 1)) / 2 ** (depth - 1)).astype(np.float32)
        words = {"source": "a", "target": "b"} if name == "style" else {"desc": "rain"}

        with running(runner) as engine:
            job = job_of("edit", {"name": name, "audio": FILE, **words})
            edited = run_task(JobContext(job, engine), media(source), model)

        assert isinstance(edited, EditedSound)
        assert (edited.subtype, edited.warnings) == (f"PCM_{depth}" if samples > 1 else edited.subtype, ())
        assert np.array_equal(edited.samples, np.repeat(source, 3 - channels, axis=0))

    def test_a_silence_and_what_is_quiet_after_it_stay_as_they_were(self, runner: EchoRunner, model: OmniModel) -> None:
        loud, quiet = 0.2 * noise(9 * RATE, 1), 0.0125 * noise(9 * RATE, 2)
        source = np.concatenate([loud, np.zeros((1, RATE * 6 // 5), np.float32), quiet], axis=1)

        with running(runner) as engine:
            clip = clip_of(run_task(JobContext(job_of("edit", ADD), engine), media(source), model))

        np.testing.assert_allclose(clip, np.repeat(source, 2, axis=0), atol=1e-6)

    @pytest.mark.parametrize("loudness", ["source", "peak"])
    @pytest.mark.parametrize("channels", [1, 2])
    def test_mono_is_the_mono_mix_of_what_would_have_come(
        self, runner: EchoRunner, model: OmniModel, channels: int, loudness: str
    ) -> None:
        source = 0.1 * noise(12 * RATE, channels=channels)

        with running(runner) as engine:
            job = job_of("edit", ADD | {"loudness": loudness, "channels": 1})
            clip = clip_of(run_task(JobContext(job, engine), media(source), model))

        heard = source.mean(axis=0, keepdims=True)
        assert clip.shape == (1, 12 * RATE)
        wanted = heard if loudness == "source" else heard / np.abs(heard).max()
        np.testing.assert_allclose(clip, wanted, atol=1e-5)

    @pytest.mark.parametrize(("form", "peak"), [("wav", 1.0), ("flac", 1.0)])
    def test_what_would_go_above_full_scale_is_made_quieter_as_a_whole_and_said_so(
        self, runner: EchoRunner, model: OmniModel, form: str, peak: float
    ) -> None:
        source = np.rint(0.5 * media_files.tone(2.0, RATE)[:, : 2 * RATE] / 0.5 * 32_000).astype(np.float32) / 32_768
        source /= np.float32(max(1.0, np.abs(source).max()))
        added = 0.9 * media_files.tone(2.0, RATE, hertz=1_000) / np.abs(media_files.tone(2.0, RATE)).max()
        runner.adds = added[0].astype(np.float32)

        with running(runner) as engine:
            edited = run_task(JobContext(job_of("edit", ADD, format=form), engine), media(source), model)

        assert isinstance(edited, EditedSound)
        assert np.abs(edited.samples).max() == pytest.approx(peak, abs=1e-6)
        assert "quieter than its source" in edited.warnings[0]

    def test_silence_is_as_long_as_it_was(self, runner: EchoRunner, model: OmniModel) -> None:
        runner.finish = lambda batch: [np.zeros((2, CLIP_SAMPLES), np.float32) for _ in batch]  # type: ignore[method-assign]

        with running(runner) as engine:
            clip = clip_of(run_task(JobContext(job_of("edit", ADD), engine), media(noise(12 * RATE)), model))

        assert clip.shape == (2, 12 * RATE)
        assert np.abs(clip).max() < 5e-6

    def test_windows_share_batches_and_each_has_a_seed_of_its_own(self, runner: EchoRunner, model: OmniModel) -> None:
        with running(runner, waits_for=CLIPS_AT_ONCE) as engine:
            run_task(JobContext(job_of("edit", ADD), engine), media(noise(35 * RATE)), model)

        assert runner.batches[:3] == [engine.submitted[:CLIPS_AT_ONCE]] * 3
        assert [inputs_of(one).seed for one in engine.submitted] == [7, 8, 9, 10]

    def test_a_long_source_leaves_room_in_the_queue(self, runner: EchoRunner, model: OmniModel) -> None:
        with running(runner, waits_for=CLIPS_AT_ONCE) as engine:
            clip = clip_of(run_task(JobContext(job_of("edit", ADD), engine), media(noise(100 * RATE)), model))

        assert clip.shape == (2, 100 * RATE)
        assert len(engine.submitted) == 11
        assert engine.most_at_once == CLIPS_AT_ONCE

    def test_one_window_that_fails_ends_them_all(self, runner: EchoRunner, model: OmniModel) -> None:
        def fail_the_second(request: Request) -> None:
            if inputs_of(request).seed == 8:
                raise JobFailed("torn")

        runner.on_prepare, runner.endless = fail_the_second, True
        with running(runner, waits_for=CLIPS_AT_ONCE) as engine:
            run = JobContext(job_of("edit", ADD), engine)
            with pytest.raises(JobFailed):
                run_task(run, media(noise(35 * RATE)), model)
            others = [one for one in engine.submitted if inputs_of(one).seed != 8]
            errors = [one.outcome.exception(timeout=300) for one in others]

        assert [type(error) for error in errors] == [JobCancelled] * (CLIPS_AT_ONCE - 1)


JOBS = {"one after the other": (music(), 3), "at once": (job_of("edit", ADD), 4)}
SOURCE = noise(35 * RATE)


@pytest.mark.parametrize("how", JOBS)
class TestSeveralWindows:
    def test_progress_counts_towards_all_of_them_and_only_grows(
        self, runner: EchoRunner, model: OmniModel, how: str
    ) -> None:
        job, windows = JOBS[how]
        seen: list[Progress] = []

        with running(runner) as engine:
            run = JobContext(job, engine)
            runner.on_step = lambda: seen.append(run.progress())
            run_task(run, media(SOURCE), model)
            seen.append(run.progress())

        assert {one.steps for one in seen} == {3 * windows}
        steps = [one.step for one in seen]
        assert steps == sorted(steps)
        assert (steps[0] > 0, steps[-1]) == (True, 3 * windows)
        assert all(one.eta is not None for one in seen)

    def test_their_time_is_counted_once(self, runner: EchoRunner, model: OmniModel, how: str) -> None:
        job, _ = JOBS[how]
        runner.on_step = lambda: time.sleep(0.002)
        start = time.monotonic()

        with running(runner) as engine:
            run = JobContext(job, engine)
            run_task(run, media(SOURCE), model)

        assert run.timings.sampled > 0
        assert run.timings.conditioned + run.timings.sampled <= time.monotonic() - start

    def test_they_keep_the_jobs_priority_and_deadline(self, runner: EchoRunner, model: OmniModel, how: str) -> None:
        deadline = datetime.now(UTC) + timedelta(hours=1)
        job = JOBS[how][0].model_copy(update={"priority": "batch", "deadline": deadline})

        with running(runner) as engine:
            run_task(JobContext(job, engine), media(SOURCE), model)

        assert {one.priority for one in engine.submitted} == {"batch"}
        assert [one.deadline for one in engine.submitted] == pytest.approx(
            [deadline.timestamp()] * len(engine.submitted), abs=1
        )

    def test_a_cancelled_job_ends_in_the_engine(self, runner: EchoRunner, model: OmniModel, how: str) -> None:
        job, _ = JOBS[how]
        runner.endless = True

        with running(runner) as engine:
            run = JobContext(job, engine)
            runner.on_step = run.cancel
            with pytest.raises(JobCancelled):
                run_task(run, media(SOURCE), model)
            errors = [one.outcome.exception(timeout=300) for one in engine.submitted]

        assert {type(error) for error in errors} == {JobCancelled}


def test_a_job_that_is_cancelled_between_windows_begins_no_other(runner: EchoRunner, model: OmniModel) -> None:
    with running(runner) as engine:
        run = JobContext(music(), engine)
        runner.on_finish = run.cancel
        with pytest.raises(JobCancelled):
            run_task(run, JobMedia({}, ()), model)

    assert len(engine.submitted) == 1
    assert (run.progress().step, run.progress().steps) == (3, 9)


def test_a_deadline_that_passes_between_windows_ends_the_job(runner: EchoRunner, model: OmniModel) -> None:
    with running(runner) as engine:
        run = JobContext(music(), engine, seconds_left=2.0)
        runner.on_finish = lambda: time.sleep(2.1)
        with pytest.raises(DeadlineExceeded):
            run_task(run, JobMedia({}, ()), model)

    assert len(engine.submitted) == 1


class TestTinyCheckpoint:
    """From the file in storage to the file in storage."""

    @pytest.fixture
    def storage(self, tmp_path: Path) -> FolderStorage:
        return FolderStorage(tmp_path)

    @pytest.fixture
    def engine(self, tiny: AudioOmniRunner) -> Iterator[GatedEngine]:
        with running(tiny) as engine:
            yield engine

    def edit(self, file: bytes, storage: FolderStorage, engine: Engine, model: OmniModel, **task: str) -> JobResult:
        audio = storage.put_input(storage.describe_input(io.BytesIO(file)), io.BytesIO(file))
        job = job_of("edit", ADD | {"audio": audio.model_dump(), **task}, steps=1, guidance=1)
        return JobRunner(model, storage, WorkerSettings()).run(JobContext(job, engine))

    def heard(self, result: JobResult, storage: FolderStorage) -> np.ndarray:
        assert result.artifact is not None
        data = storage.get(result.artifact.uri, max_bytes=10**8)
        return soundfile.read(io.BytesIO(data), always_2d=True)[0]

    def test_twenty_five_seconds_of_music(self, storage: FolderStorage, engine: GatedEngine, model: OmniModel) -> None:
        job = music(steps=2, guidance=1)

        result = JobRunner(model, storage, WorkerSettings()).run(JobContext(job, engine))

        sound = self.heard(result, storage)
        assert sound.shape == (25 * RATE, 2)
        seconds = np.sqrt(np.square(sound).mean(axis=1).reshape(25, RATE).mean(axis=1))
        assert seconds.min() > 0.01
        assert len(engine.submitted) == 3

    def test_a_stereo_source_of_several_windows_is_as_long_and_stereo(
        self, storage: FolderStorage, tiny: AudioOmniRunner, model: OmniModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        batches: list[int] = []
        advance = tiny.advance
        monkeypatch.setattr(tiny, "advance", lambda batch: batches.append(len(batch)) or advance(batch))
        source = media_files.encode("wav", media_files.tone(23.4, RATE, 2)[:, :-3], RATE)

        with running(tiny, waits_for=CLIPS_AT_ONCE) as engine:
            result = self.edit(source, storage, engine, model, loudness="peak")

        sound = self.heard(result, storage)
        assert sound.shape == (round(23.4 * RATE) - 3, 2)
        assert np.abs(sound).max() == pytest.approx(1, abs=1e-3)
        assert sum(batches) == 3

    def test_ten_seconds_are_what_the_engine_gives_to_the_bit(
        self, storage: FolderStorage, engine: GatedEngine, model: OmniModel
    ) -> None:
        result = self.edit(media_files.wav(10.0, RATE), storage, engine, model, loudness="peak")

        (request,) = engine.submitted
        pcm = (request.outcome.result()[:, :PROMPT] * np.float32(32_767)).astype(np.int16)
        assert np.array_equal(np.round(self.heard(result, storage).T * 32_768), pcm)

    def test_a_source_that_is_too_long_is_refused_with_the_limit(
        self, storage: FolderStorage, engine: GatedEngine, model: OmniModel
    ) -> None:
        with pytest.raises(MediaTooLong, match="600") as caught:
            self.edit(media_files.wav(601.0, 8_000), storage, engine, model)

        assert caught.value.field == "audio"
        assert engine.submitted == []
