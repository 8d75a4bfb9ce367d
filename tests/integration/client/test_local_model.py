"""The same calls without a fleet: a model in this process, with the same results and the same errors."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omnifleet import CheckpointInvalid, JobCancelled, JobStatus, MediaUnreadable, UnknownJob, UnknownTask
from omnifleet.batch import edit, understand
from omnifleet.local import LocalModel
from support.data import media_files

WAIT = 240.0


@pytest.fixture(scope="module")
def omni(checkpoint: Path) -> Iterator[LocalModel]:
    with LocalModel(checkpoint, device="cpu") as model:
        yield model


def test_every_namespace_gives_what_a_fleet_would(omni: LocalModel, tmp_path: Path) -> None:
    sound = media_files.wav(1.0)

    jobs = [
        omni.understand("caption", sound, max_new_tokens=4),
        omni.generate("t2a", "a bell", seconds=1, steps=2, seed=3),
        omni.edit("Add", sound, desc="rain", steps=2, format="flac"),
    ]
    answer, made, edited = (job.result(WAIT) for job in jobs)

    assert answer.text
    assert made.seed == 3
    assert made.audio.save(tmp_path / "bell.wav").stat().st_size == made.audio.bytes
    assert edited.audio.seconds == pytest.approx(1.0, abs=1e-3)


def test_a_batch_gives_every_outcome_too(omni: LocalModel) -> None:
    sound = media_files.wav(1.0)
    jobs = [
        edit("Add", sound, desc="rain", steps=2),
        edit("Add", b"no sound", desc="rain"),
        understand("caption", sound, max_new_tokens=4),
    ]

    made, broken, answer = omni.batch(jobs, in_order=True)

    assert made.result.audio is not None
    assert isinstance(broken.error, MediaUnreadable)
    assert answer.result.text


def test_jobs_share_the_engine_and_report_progress(omni: LocalModel) -> None:
    slow, quick = omni.generate("t2a", "a", steps=300), omni.generate("t2a", "b", seconds=1, steps=1)

    quick.result(WAIT)

    assert slow.status() is JobStatus.RUNNING
    slow.cancel()
    with pytest.raises(JobCancelled):
        slow.result(WAIT)
    assert slow.status() is JobStatus.CANCELLED
    assert 0 < slow.progress().step < 300


def test_errors_are_the_same(omni: LocalModel) -> None:
    with pytest.raises(UnknownTask):
        omni.edit("Ad", media_files.wav(1.0), desc="rain")
    with pytest.raises(MediaUnreadable):
        omni.edit("Add", b"no sound", desc="rain").result(WAIT)
    with pytest.raises(UnknownJob):
        omni.job("nobody").status()


def test_no_checkpoint_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid):
        LocalModel(tmp_path / "nowhere")


def test_importing_it_loads_no_torch() -> None:
    check = "import sys, omnifleet.local; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_streams_give_the_result_in_parts(omni: LocalModel) -> None:
    music = omni.generate("t2m", "a waltz", seconds=15, steps=1, stream=True)
    answer = omni.understand("caption", media_files.wav(1.0), max_new_tokens=30, stream=True)

    parts, texts = list(music.stream(timeout=WAIT)), [part.text or "" for part in answer.stream(timeout=WAIT)]

    heard = [soundfile.read(io.BytesIO(part.audio.read()), dtype="int16")[0] for part in parts if part.audio]
    whole, _ = soundfile.read(io.BytesIO(music.result().audio.read()), dtype="int16")
    assert len(heard) == 2
    assert np.array_equal(np.concatenate(heard), whole)
    assert "".join(texts) == answer.result().text
