"""Streamed jobs in a worker: what is given out is the result, to the sample, whichever attempts made it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_shared.errors import BrokerUnavailable, EngineStopped
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.model_card import ModelCard
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.request import DiffusionInputs, Request
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.speech_parts import join_speech, streamed_speech
from omnifleet_worker.jobs.streaming.job_stream import JobStreams
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.jobs.windows import join_generated, newest_generated
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.audio_omni.tiny import tiny_vocab
from omnifleet_worker.settings import WorkerSettings

RATE = 44_100
MODEL = OmniModel(
    card=ModelCard(name="noisy", revision="1", licence="none", languages=("en",)),
    prompts=Prompts({"system": {"T2M": "Make music.", "TTS": "Speak."}}),
    tokenizer=SpeechTokenizer(tiny_vocab()),
)
MUSIC = {"name": "t2m", "text": "a waltz", "seconds": 35}
SPEECH = {"name": "tts", "text": "One more word is said in this sentence of them. " * 6}


class NoisyRunner:
    """Makes noise of the seed, shaped so that parts differ in loudness, with a peak of 1 as the model does."""

    def __init__(self, *, differs: int = 0) -> None:
        self.batches: list[list[int]] = []
        self._differs = differs

    def prepare(self, request: Request) -> None:
        pass

    def advance(self, batch: Sequence[Request]) -> None:
        self.batches.append([inputs_of(one).seed for one in batch])
        for one in batch:
            one.step += 1

    def is_done(self, request: Request) -> bool:
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        return [noise(inputs_of(one).seed + self._differs) for one in batch]

    def release(self, request: Request) -> None:
        pass


class Log:
    """Parts in memory; may be away, or the lease lost, from some part on."""

    def __init__(self) -> None:
        self.parts: list[StreamedPart] = []
        self.raises_at: dict[int, Exception] = {}

    def commit(self, job_id: str, tag: str, part: StreamedPart) -> StreamedPart:
        if (error := self.raises_at.pop(part.number, None)) is not None:
            raise error
        assert (job_id, tag, part.number) == ("job", "tag", len(self.parts) + 1)
        self.parts.append(part)
        return part

    def read(self, job_id: str) -> list[StreamedPart]:
        return list(self.parts)


def inputs_of(request: Request) -> DiffusionInputs:
    assert isinstance(request.inputs, DiffusionInputs)
    return request.inputs


def noise(seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed)
    clip = drawn.standard_normal((2, CLIP_SAMPLES), dtype=np.float32)
    clip[:, CLIP_SAMPLES // 2] *= drawn.uniform(1, 20)
    clip /= np.abs(clip).max()
    return clip


@contextmanager
def running(runner: NoisyRunner) -> Iterator[Engine]:
    engine = Engine(runner, EngineLimits(clips=16, chats=16))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def job_of(task: dict[str, Any], **fields: Any) -> Job:
    fields = {"schema_version": 6, "job_id": "job", "steps": 2, "seed": 7, "stream": True, **fields}
    return read_job({"namespace": "generate", "task": task, **fields})


def run(folder: Path, job: Job, log: Log, attempt: int = 1, runner: NoisyRunner | None = None) -> JobResult:
    storage, options = FolderStorage(folder), WorkerSettings(redis_patience=5)
    with running(runner or NoisyRunner()) as engine:
        jobs = JobRunner(MODEL, storage, options, streams=JobStreams(storage, log, options))
        return jobs.run(JobContext(job, engine, attempt=attempt, tag="tag"))


def read(folder: Path, artifact: Any) -> np.ndarray:
    data = FolderStorage(folder).get(artifact.uri, max_bytes=artifact.bytes)
    assert hashlib.sha256(data).hexdigest() == artifact.sha256
    samples: Any = soundfile.read(io.BytesIO(data), dtype="int16")[0]
    assert len(samples) / RATE == pytest.approx(artifact.seconds)
    return samples


def joined(folder: Path, log: Log) -> np.ndarray:
    return np.concatenate([read(folder, part.audio) for part in log.parts])


@pytest.mark.parametrize("form", ["wav", "flac"])
@pytest.mark.parametrize(("task", "parts"), [(MUSIC, 4), (SPEECH, 6)])
def test_the_parts_are_the_result_to_the_sample(folder: Path, task: dict[str, Any], parts: int, form: str) -> None:
    log = Log()

    result = run(folder, job_of(task, format=form), log)

    assert len(log.parts) == parts
    assert [part.number for part in log.parts] == list(range(1, parts + 1))
    assert result.artifact is not None
    assert np.array_equal(joined(folder, log), read(folder, result.artifact))


def test_streamed_music_has_the_samples_of_music_that_is_not(folder: Path) -> None:
    plain = run(folder, job_of(MUSIC, stream=False), none := Log())

    streamed = run(folder, job_of(MUSIC), Log(), attempt=2)

    assert none.parts == []
    assert np.array_equal(read(folder, plain.artifact), read(folder, streamed.artifact))


def test_a_job_of_one_window_has_no_parts_beside_its_result(folder: Path) -> None:
    log = Log()

    run(folder, job_of({**MUSIC, "seconds": 10}), log)

    assert log.parts == []


def test_a_sentence_is_given_out_before_the_next_one_is_made(folder: Path) -> None:
    runner = NoisyRunner()

    run(folder, job_of({**SPEECH, "text": str(SPEECH["text"]) * 3}), log := Log(), runner=runner)

    assert {len(batch) for batch in runner.batches} == {1}
    assert len(runner.batches) == 2 * len(log.parts) > 2


@pytest.mark.parametrize("task", [MUSIC, SPEECH])
def test_a_later_attempt_gives_out_what_follows(folder: Path, task: dict[str, Any]) -> None:
    log = Log()
    log.raises_at[3] = EngineStopped("the lease was lost")
    with pytest.raises(EngineStopped):
        run(folder, job_of(task), log)
    before = list(log.parts)

    result = run(folder, job_of(task), log, attempt=2)

    uninterrupted = run(folder, job_of(task), Log(), attempt=3)
    assert log.parts[:2] == before
    assert np.array_equal(joined(folder, log), read(folder, result.artifact))
    assert np.array_equal(read(folder, uninterrupted.artifact), read(folder, result.artifact))


def test_what_was_given_out_counts_where_a_later_attempt_made_other_samples(folder: Path) -> None:
    log = Log()
    log.raises_at[3] = EngineStopped("the lease was lost")
    with pytest.raises(EngineStopped):
        run(folder, job_of(MUSIC), log)

    result = run(folder, job_of(MUSIC), log, attempt=2, runner=NoisyRunner(differs=1))

    assert np.array_equal(joined(folder, log), read(folder, result.artifact))


def test_a_part_waits_for_a_redis_that_is_away(folder: Path) -> None:
    log = Log()
    log.raises_at[2] = BrokerUnavailable("it restarts")

    run(folder, job_of(MUSIC), log)

    assert [part.number for part in log.parts] == list(range(1, 5))


@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=20, deadline=None)
def test_what_each_window_adds_is_never_changed_by_the_next(count: int, seed: int, data: st.DataObject) -> None:
    drawn = np.random.default_rng(seed)
    clips = [drawn.uniform(-1, 1, (1, CLIP_SAMPLES)).astype(np.float32) for _ in range(count)]
    samples = data.draw(st.integers(CLIP_SAMPLES + 439_228 * (count - 2) + 1, CLIP_SAMPLES + 439_228 * (count - 1)))
    samples = max(1, samples)

    added = [newest_generated(clips[: number + 1], samples) for number in range(count)]

    assert np.array_equal(np.concatenate(added, axis=1), join_generated(clips)[:, :samples])


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=4), st.lists(st.floats(1, 50), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_streamed_speech_is_as_loud_as_its_first_part_where_full_scale_allows_it(
    levels: list[float], spikes: list[float]
) -> None:
    clips = [(level * np.random.default_rng(1).standard_normal((2, 4410)) / 6).astype(np.float32) for level in levels]
    for clip, spike in zip(clips, spikes, strict=False):
        clip[:, 2000] *= spike
        clip /= max(1.0, float(np.abs(clip).max()))
    parts = ["One. "] * len(clips)

    pieces = [
        streamed_speech(clip, clips[0], part, RATE, is_last=number == len(clips) - 1)
        for number, (clip, part) in enumerate(zip(clips, parts, strict=True))
    ]

    streamed, whole = np.concatenate(pieces, axis=1), join_speech(clips, parts, RATE)
    assert np.abs(streamed).max() <= 1
    assert streamed.shape == whole.shape
    if np.abs(streamed).max() < 0.999:
        np.testing.assert_allclose(streamed, whole, atol=1e-6)
