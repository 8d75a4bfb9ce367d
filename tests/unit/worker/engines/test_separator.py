"""AudioSep as an engine, with a stand-in for a clone of it: what is taken out of recordings, and what is left."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import (
    CheckpointInvalid,
    DeadlineExceeded,
    DeviceFailed,
    InvalidJob,
    InvalidSetting,
    JobCancelled,
    JobFailed,
    LanguageNotSupported,
    LicenceRefused,
    OmnifleetError,
    OutOfMemory,
    TaskNotSupported,
)
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.audiosep.clone_process import CloneProcess
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.recordings.residual import divide
from omnifleet_worker.engines.table import choose_engine, load_model
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.media.encode import Subtype
from omnifleet_worker.models.recording_model import RecordingInputs
from omnifleet_worker.settings import WorkerSettings
from support.data.audiosep_clone import WEIGHTS, write_clone
from support.engines.running_engine import fail_and_resume, running

Samples = np.ndarray
Edit = Callable[..., tuple[Samples, Any]]
NOISE = np.random.default_rng(1)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clone(tmp_path_factory.mktemp("clones") / "AudioSep")


@pytest.fixture(scope="module")
def loaded(clone: Path) -> Iterator[LoadedModel]:
    model = load(clone)
    yield model
    model.close()


@pytest.fixture
def storage(tmp_path: Path) -> FolderStorage:
    return FolderStorage(tmp_path)


def load(clone: Path, **more: Any) -> LoadedModel:
    return load_model(WorkerSettings(checkpoint=clone, engine="audiosep", device="cpu", **more))


def noise(seconds: float, rate: int = 32_000, channels: int = 1) -> Samples:
    return (NOISE.standard_normal((round(seconds * rate), channels)) / 10).astype(np.float32)


def job_of(
    storage: FolderStorage, samples: Samples, rate: int, *, subtype: str = "PCM_16", task: Any = (), **more: Any
) -> Job:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    media = storage.put_input(storage.describe_input(file), file).model_dump()
    head = {"schema_version": 8, "model": "audiosep", "namespace": "edit"}
    return read_job(head | {"task": {"name": "extract", "audio": media, "desc": "a dog", **dict(task)}} | more)


@pytest.fixture
def edit(loaded: LoadedModel, storage: FolderStorage) -> Edit:
    """Runs a job, and gives the samples of its result as they are written, and what its file says of itself."""

    def run(samples: Samples, rate: int = 32_000, dtype: Literal["float64", "int32"] = "float64", **more: Any) -> Any:
        with running(loaded) as engine:
            job = job_of(storage, samples, rate, **more)
            result = JobRunner(loaded.model, storage, WorkerSettings()).run(JobContext(job, engine))
        assert result.artifact is not None
        data = storage.get(result.artifact.uri, max_bytes=2**28)
        made, _ = soundfile.read(io.BytesIO(data), dtype=dtype, always_2d=True)
        return made, soundfile.info(io.BytesIO(data))

    return run


class TestWhatIsTakenAndWhatIsLeft:
    @pytest.mark.parametrize(
        ("seconds", "rate", "channels", "subtype"),
        [
            (0.1, 44_100, 2, "PCM_16"),
            (0.01, 8_000, 1, "PCM_24"),
            (9.99, 44_100, 2, "PCM_24"),
            (9.99, 8_000, 1, "PCM_16"),
            (31, 48_000, 2, "PCM_16"),
            (31, 8_000, 1, "PCM_16"),
            (2, 44_101, 1, "PCM_16"),
            (1, 48_000, 6, "PCM_24"),
        ],
    )
    def test_they_add_up_to_the_source_bit_for_bit(
        self, edit: Edit, seconds: float, rate: int, channels: int, subtype: str
    ) -> None:
        samples = noise(seconds, rate, channels)
        source = io.BytesIO()
        soundfile.write(source, samples, rate, format="WAV", subtype=subtype)
        source.seek(0)
        whole = soundfile.read(source, dtype="int32", always_2d=True)[0].astype(np.int64)

        taken, about = edit(samples, rate, "int32", subtype=subtype)
        left, _ = edit(samples, rate, "int32", subtype=subtype, task={"name": "remove"})

        assert (about.samplerate, about.channels, about.frames, about.subtype) == (
            rate,
            channels,
            len(samples),
            subtype,
        )
        assert np.array_equal(taken.astype(np.int64) + left, whole)
        assert taken.any() and left.any()

    def test_another_description_takes_something_else(self, edit: Edit) -> None:
        samples = noise(2)

        dog, again, rain = (edit(samples, task={"desc": desc})[0] for desc in ("a dog", "a dog", "rain"))

        assert np.array_equal(dog, again)
        assert np.abs(dog - rain).max() > 0.01

    def test_a_long_recording_is_taken_apart_as_a_whole_is(self, edit: Edit, loaded: LoadedModel) -> None:
        samples = noise(24)

        taken, _ = edit(samples, subtype="FLOAT")

        with running(loaded) as engine:
            (whole,) = take(engine, samples[:, 0])
        # The stand-in hears a fifteenth of a second at once; ends of windows are faded out.
        assert np.abs(taken[:, 0] - whole).max() < 1e-5

    @pytest.mark.parametrize("name", ["extract", "remove"])
    def test_silence_stays_silence(self, edit: Edit, name: str) -> None:
        made, _ = edit(np.zeros((320_000, 2)), task={"name": name})

        assert made.shape == (320_000, 2) and not made.any()

    def test_each_channel_keeps_its_own(self, edit: Edit) -> None:
        mono = noise(11)
        left, both = np.hstack([mono, 0 * mono]), np.hstack([mono, mono])

        (alone, _), (one_side, _), (middle, _) = edit(mono), edit(left), edit(both)

        assert np.array_equal(one_side[:, :1], alone) and not one_side[:, 1].any()
        assert np.array_equal(middle, np.hstack([alone, alone]))

    def test_one_channel_is_made_where_one_is_asked_for(self, edit: Edit) -> None:
        samples = noise(1, channels=2)

        taken, about = edit(samples, task={"channels": 1}, subtype="FLOAT")
        left, _ = edit(samples, task={"channels": 1, "name": "remove"}, subtype="FLOAT")

        assert about.channels == 1
        assert np.allclose(taken + left, samples.mean(axis=1, keepdims=True), atol=1e-6)

    def test_floats_go_above_full_scale_and_a_peak_is_made_on_demand(self, edit: Edit) -> None:
        samples = 30 * noise(1)

        left, about = edit(samples, task={"name": "remove"}, subtype="FLOAT")
        peak, _ = edit(samples, task={"loudness": "peak"}, subtype="FLOAT")

        assert about.subtype == "FLOAT" and np.abs(left).max() > 1
        assert np.abs(peak).max() == 1

    def test_a_format_that_would_not_hold_it_is_refused(self, edit: Edit) -> None:
        with pytest.raises(InvalidJob, match="format"):
            edit(30 * noise(1), subtype="FLOAT", format="flac")
        with pytest.raises(InvalidJob, match="format"):
            edit(noise(1, 96_000), 96_000, format="mp3")

    @given(
        st.lists(st.tuples(st.integers(-(2**15), 2**15 - 1), st.floats(-4, 4, width=32)), min_size=1, max_size=50),
        st.sampled_from(["PCM_16", "PCM_24"]),
    )
    def test_neither_goes_above_full_scale(self, samples: list[tuple[int, float]], subtype: Subtype) -> None:
        source = np.array([[whole / 2**15 for whole, _ in samples]], np.float32)
        top = 2**15 if subtype == "PCM_16" else 2**23

        taken, left = divide(source, np.array([[part for _, part in samples]], np.float32), subtype)

        assert np.array_equal(taken.astype(np.float64) + left, source)
        for one in (taken, left):
            steps = one.astype(np.float64) * top
            assert np.array_equal(steps, np.rint(steps)) and steps.min() >= -top and steps.max() < top


def take(engine: Engine, *waves: Samples) -> list[Samples]:
    """What the model takes out of waves that are worked on side by side."""
    requests = [engine.submit(Request(inputs=RecordingInputs(wave=wave, about="a dog"))) for wave in waves]
    return [request.outcome.result(60)[0] for request in requests]


class TestJobs:
    def test_mates_do_not_change_a_result(self, loaded: LoadedModel) -> None:
        waves = [noise(seconds)[:, 0] for seconds in (1, 0.3, 2)]
        with running(loaded) as engine:
            alone = [take(engine, wave)[0] for wave in waves]
            together = take(engine, *waves)

        assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))

    @pytest.mark.parametrize("reason", [None, DeadlineExceeded("too late")])
    def test_a_job_ends_between_two_windows(
        self, loaded: LoadedModel, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch, reason: Any
    ) -> None:
        work, seen = CloneProcess.work, list[int]()
        job = job_of(storage, noise(40, 8_000, 2), 8_000)
        with running(loaded) as engine:
            context = JobContext(job, engine)

            def watched(clone: CloneProcess, inputs: RecordingInputs) -> Samples:
                seen.append(len(inputs.wave))
                if len(seen) == 3:
                    context.cancel(reason)
                return work(clone, inputs)

            monkeypatch.setattr(CloneProcess, "work", watched)
            with pytest.raises(JobCancelled if reason is None else DeadlineExceeded):
                JobRunner(loaded.model, storage, WorkerSettings()).run(context)

        assert len(seen) == 3
        assert context.progress().steps == 10

    def test_a_later_attempt_goes_on_where_the_earlier_one_was(
        self, loaded: LoadedModel, storage: FolderStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = fail_and_resume(loaded, CloneProcess, job_of(storage, noise(25), 32_000), storage, monkeypatch)

        assert made.calls == 4  # two, one that failed, and the last alone
        assert made.again.artifact is not None and made.alone.artifact is not None
        assert made.again.artifact.sha256 == made.alone.artifact.sha256

    @pytest.mark.parametrize(
        ("task", "more", "error"),
        [
            ({"name": "add"}, {}, TaskNotSupported),
            ({}, {"language": "ru"}, LanguageNotSupported),
            ({}, {"model": "audio-omni"}, InvalidJob),
        ],
    )
    def test_what_it_cannot_do_is_refused(
        self, edit: Edit, task: dict[str, str], more: dict[str, str], error: type[OmnifleetError]
    ) -> None:
        with pytest.raises(error):
            edit(noise(0.1), task=task, **more)

    def test_its_licence_is_for_any_use_unless_its_card_says_otherwise(self, edit: Edit, tmp_path: Path) -> None:
        made, _ = edit(noise(0.1), commercial=True, language="en")
        clone = write_clone(tmp_path / "clone")
        card = {"name": "audiosep", "licence": "other", "tasks": {"edit.extract": {}}}
        (clone / "card.json").write_text(json.dumps(card))

        assert made.any()
        with closing(load(clone)) as other, pytest.raises(LicenceRefused):
            other.model.validate_job(job_of(FolderStorage(tmp_path / "storage"), noise(0.1), 32_000, commercial=True))


class TestTheClone:
    @pytest.mark.parametrize(
        ("loudness", "error"),
        [(35, JobFailed), (45, OutOfMemory), (60, DeviceFailed)],
        ids=["failed", "memory", "gone"],
    )
    def test_what_it_fails_with_is_known_by_its_kind(
        self, clone: Path, loudness: float, error: type[OmnifleetError]
    ) -> None:
        with closing(load(clone)) as loaded, running(loaded) as engine:
            with pytest.raises(error):
                take(engine, np.full(32_000, loudness, np.float32))
            if error is not DeviceFailed:
                assert take(engine, noise(0.1)[:, 0])[0].any()

    def test_its_code_is_run_only_where_the_setting_says_so(self, tmp_path: Path) -> None:
        clone = write_clone(tmp_path / "clone")
        (clone / "card.json").write_text(json.dumps({"engine": "audiosep"}))

        with pytest.raises(CheckpointInvalid, match="OMNIFLEET_ENGINE=audiosep"):
            choose_engine(WorkerSettings(checkpoint=clone))
        assert choose_engine(WorkerSettings(checkpoint=clone, engine="audiosep")) == "audiosep"

    @pytest.mark.parametrize("missing", ["pipeline.py", "config/audiosep_base.yaml", WEIGHTS])
    def test_a_clone_that_is_not_whole_is_refused(self, tmp_path: Path, missing: str) -> None:
        clone = write_clone(tmp_path / "clone")
        (clone / missing).unlink()

        with pytest.raises(CheckpointInvalid):
            load(clone)

    def test_weights_that_are_missing_are_named_and_not_made_up(self, tmp_path: Path) -> None:
        clone = write_clone(tmp_path / "clone")
        held = torch.load(clone / WEIGHTS)
        del held["state_dict"]["ss_model.film.bias"]
        torch.save(held, clone / WEIGHTS)

        with pytest.raises(CheckpointInvalid, match=r"lacks 1 weights, the first is film\.bias"):
            load(clone)

    def test_a_python_that_is_not_there_is_named(self, clone: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidSetting, match="OMNIFLEET_CLONE_PYTHON"):
            load(clone, clone_python=tmp_path / "python")

    def test_it_gets_none_of_the_workers_secrets(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        clone = write_clone(tmp_path / "clone")
        (clone / "pipeline.py").write_text("import os\nraise SystemExit(str(sorted(os.environ)))")
        monkeypatch.setenv("OMNIFLEET_REDIS_URL", "redis://:secret@host")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

        with pytest.raises(CheckpointInvalid) as refusal:
            load(clone)

        assert "HF_HUB_OFFLINE" in str(refusal.value)
        assert "REDIS" not in str(refusal.value) and "AWS" not in str(refusal.value)
