"""Sound and music for a video, from the file in storage to the files in storage, on the tiny checkpoint."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from omnifleet_shared.errors import InvalidJob, MediaError, MediaTooLong, MediaUnreadable, TaskNotSupported
from omnifleet_shared.schema.base import Media
from omnifleet_shared.schema.jobs import GenerateJob, read_job
from omnifleet_shared.schema.model_card import NEEDS_SYNCHFORMER
from omnifleet_shared.schema.results import JobResult, read_result
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.tasks import OmniModel
from omnifleet_worker.model_loader import describe
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.settings import WorkerSettings
from support.data import media_files

RATE = 44_100
Make = Callable[..., JobResult]


@pytest.fixture(scope="module")
def runner() -> AudioOmniRunner:
    return AudioOmniRunner(tiny_pipeline())


@pytest.fixture(scope="module")
def engine(runner: AudioOmniRunner) -> Iterator[Engine]:
    engine = Engine(runner, EngineLimits(clips=4, chats=4))
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def model(runner: AudioOmniRunner) -> OmniModel:
    return describe(runner.pipeline)


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


@pytest.fixture
def make(storage: FolderStorage, engine: Engine, model: OmniModel) -> Make:
    """Run a job for a film; by default `v2a` in one step."""

    def run(film: bytes, name: str = "v2a", **task: Any) -> JobResult:
        jobs = JobRunner(model, storage, WorkerSettings())
        return jobs.run(JobContext(job_for(uploaded(film, storage), name, **task), engine))

    return run


def uploaded(film: bytes, storage: FolderStorage) -> Media:
    return storage.put_input(storage.describe_input(io.BytesIO(film)), io.BytesIO(film))


def job_for(video: Media, name: str, **task: Any) -> GenerateJob:
    message = {"schema_version": 1, "namespace": "generate", "steps": 1, "guidance": 1, "seed": 1}
    job = read_job(message | {"task": {"name": name, "video": video.model_dump(), **task}})
    assert isinstance(job, GenerateJob)
    return job


def heard(result: JobResult, storage: FolderStorage) -> np.ndarray:
    assert result.artifact is not None
    data = storage.get(result.artifact.uri, max_bytes=10**8)
    return soundfile.read(io.BytesIO(data), always_2d=True)[0]


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [("v2a", "mp4", "libx264"), ("v2m", "webm", "libvpx-vp9"), ("v2a", "mov", "mpeg4"), ("v2m", "matroska", "libx264")],
)
def test_the_sound_is_as_long_as_the_video(
    make: Make, storage: FolderStorage, name: str, container: str, codec: str
) -> None:
    result = make(media_files.video(1.2, 30, codec=codec, container=container), name, text="waves")

    assert (result.task, result.video, result.text) == (name, None, None)
    sound = heard(result, storage)
    assert sound.shape[1] == 2
    assert len(sound) / RATE == pytest.approx(1.2, abs=0.05)
    assert np.abs(sound).max() > 0.01


def test_the_picture_decides_what_is_heard(make: Make, storage: FolderStorage) -> None:
    one, same, other = (heard(make(media_files.video(0.4, rotation=rotation)), storage) for rotation in (0, 0, 90))

    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_variable_frame_rate_is_timed_by_its_frames(make: Make) -> None:
    result = make(media_files.video(fps=25, times=[0.0, 0.04, 0.08, 1.0, 1.04, 1.5]))

    assert result.artifact is not None
    # The last frame lasts as long as the muxer says, at most as the longest before it.
    assert 1.5 <= result.artifact.seconds <= 1.5 + 0.93


@pytest.mark.parametrize("video", [1.0, 10.8])
def test_a_length_that_is_asked_for_is_kept(make: Make, video: float) -> None:
    result = make(media_files.video(video, 5), seconds=2.5)

    assert result.artifact is not None
    assert result.artifact.seconds == 2.5


def test_ten_seconds_and_a_frame_are_ten_seconds(make: Make) -> None:
    result = make(media_files.video(10.1, 10))

    assert result.artifact is not None
    assert result.artifact.seconds == 10


def test_a_longer_video_needs_a_length(make: Make) -> None:
    with pytest.raises(MediaTooLong, match="longer than the 10 s") as caught:
        make(media_files.video(10.8, 10))

    assert caught.value.field == "video"
    assert "seconds" in (caught.value.remedy or "")


def test_more_seconds_than_the_model_makes_are_refused(make: Make) -> None:
    with pytest.raises(InvalidJob, match="more than audio-omni-tiny makes"):
        make(media_files.video(0.2), seconds=11)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx")])
def test_a_cut_file_is_refused(make: Make, container: str, codec: str) -> None:
    film = media_files.video(2.0, codec=codec, container=container, faststart=True)

    with pytest.raises(MediaUnreadable) as caught:
        make(media_files.cut(film, 0.5))

    assert caught.value.field == "video"


def test_a_file_without_pictures_is_refused(make: Make) -> None:
    with pytest.raises(MediaError, match=r"^video: "):
        make(media_files.wav(0.5))


def test_a_text_with_the_models_marks_is_refused(make: Make) -> None:
    with pytest.raises(InvalidJob, match="control marks"):
        make(media_files.video(0.2), text="<|VIDEO|>")


def test_a_checkpoint_without_synchformer_refuses(storage: FolderStorage, engine: Engine, model: OmniModel) -> None:
    blind = OmniModel(
        card=model.card.without_tasks(NEEDS_SYNCHFORMER), prompts=model.prompts, tokenizer=model.tokenizer
    )
    job = job_for(uploaded(media_files.video(0.2), storage), "v2a")

    with pytest.raises(TaskNotSupported, match=r"generate\.v2a"):
        JobRunner(blind, storage, WorkerSettings()).run(JobContext(job, engine))


class TestMux:
    @pytest.mark.parametrize(
        ("container", "codec", "format"),
        [("mp4", "libx264", "mp4"), ("mov", "libx264", "mp4"), ("webm", "libvpx", "webm")],
    )
    def test_the_video_is_stored_beside_the_sound(
        self, make: Make, storage: FolderStorage, container: str, codec: str, format: str
    ) -> None:
        film = media_files.video(1.0, codec=codec, container=container, audio_rate=48_000)

        result = make(film, mux=True)

        assert result.artifact is not None and result.video is not None
        assert result.video.format == format
        assert result.video.uri == result.artifact.uri.removesuffix("wav") + format
        muxed = storage.get(result.video.uri, max_bytes=10**8)
        with av.open(io.BytesIO(muxed)) as container_read:
            assert sum(1 for packet in container_read.demux(video=0) if packet.size) == 25
        assert result.video.bytes == len(muxed)
        assert result.video.seconds == pytest.approx(result.artifact.seconds, abs=0.05)

    @pytest.mark.parametrize(
        "film",
        [
            media_files.with_edit_list(media_files.video(2.0), [(0.0, 0.4), (1.0, 1.4)]),
            media_files.video(0.8, codec="wmv2", container="asf"),
        ],
        ids=["edit list of two parts", "wmv"],
    )
    def test_where_there_can_be_no_film_the_sound_comes_with_the_reason(
        self, make: Make, storage: FolderStorage, film: bytes
    ) -> None:
        result = make(film, mux=True)

        assert result.video is None
        (warning,) = result.warnings
        assert warning.startswith("video: its pictures cannot be put into mp4") and "Send it as mp4" in warning
        assert len(heard(result, storage)) / RATE == pytest.approx(0.8, abs=0.05)
        assert read_result(result.model_dump(mode="json")) == result

    def test_a_film_has_no_warnings(self, make: Make) -> None:
        assert make(media_files.video(0.4, codec="libaom-av1"), mux=True).warnings == ()

    def test_the_record_round_trips(self, make: Make) -> None:
        result = make(media_files.video(0.2), mux=True)

        assert read_result(result.model_dump(mode="json")) == result
