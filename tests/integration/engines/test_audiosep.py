"""A clone of AudioSep in real workers, chosen where Audio-Omni may not be used, killed and cancelled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet import Client, JobCancelled, JobHandle
from support import services
from support.data.audiosep_clone import write_clone
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker

RATE = 8_000


@dataclass
class Stage:
    """A fleet whose second model is AudioSep."""

    fleet: ScriptedFleet
    clone: Path
    omni: Client
    folder: Path

    def start(self, step_seconds: float = 0.0) -> ScriptedWorker:
        worker = self.fleet.start(
            SCRIPTED_ENGINE="real",
            SCRIPTED_STEP_SECONDS=str(step_seconds),
            OMNIFLEET_ENGINE="audiosep",
            OMNIFLEET_CHECKPOINT=str(self.clone),
            OMNIFLEET_QUEUE=self.fleet.settings.queue_of("audiosep"),
        )
        services.wait_until(lambda: any(one.live for one in self.omni.models()), WAIT, "the worker's report")
        return worker

    def edit(self, task: str, seconds: int) -> JobHandle[Any]:
        return self.omni.edit(task, self.recording(seconds), desc="a dog", commercial=True)

    def recording(self, seconds: int) -> Path:
        """So many seconds of noise, in stereo."""
        path, random = self.folder / f"{seconds}.wav", np.random.default_rng(seconds)
        soundfile.write(path, random.standard_normal((seconds * RATE, 2)) / 10, RATE, subtype="PCM_16")
        return path

    def samples(self, job: JobHandle[Any]) -> np.ndarray:
        """Of a job's result, int16 [n, 2]."""
        path = job.result(WAIT).audio.save(self.folder / f"{job.id}.wav")
        made: np.ndarray = soundfile.read(path, dtype="int16")[0]
        return made


@pytest.fixture
def stage(scripted: ScriptedFleet, tmp_path: Path) -> Iterator[Stage]:
    clone = write_clone(tmp_path / "AudioSep")
    with Client(scripted.settings.model_copy(update={"models": "audio-omni,audiosep"})) as omni:
        yield Stage(scripted, clone, omni, tmp_path)


def test_what_is_extracted_and_what_is_left_are_the_recording(stage: Stage) -> None:
    stage.start()

    taken, left = stage.edit("extract", 12), stage.edit("remove", 12)

    source = soundfile.read(stage.recording(12), dtype="int16")[0]
    of_dog, without = stage.samples(taken), stage.samples(left)
    assert np.array_equal(of_dog + without, source)
    assert of_dog.any() and without.any()
    model = taken.result(WAIT).model
    assert (model.name, model.licence) == ("audiosep", "MIT")
    route = taken.route()
    assert route is not None and route.queue.endswith(".audiosep")


def test_a_killed_workers_recording_is_taken_apart_by_another_and_a_cancelled_one_makes_room(stage: Stage) -> None:
    first = stage.start(step_seconds=0.2)
    job = stage.edit("extract", 60)
    services.wait_until(lambda: job.progress().step > 1, WAIT, "the second window")

    first.kill()
    stage.start(step_seconds=0.2)
    result, cancelled = job.result(WAIT), stage.edit("extract", 600)
    services.wait_until(lambda: cancelled.progress().step > 0, WAIT, "the first window")
    cancelled.cancel()

    with pytest.raises(JobCancelled):
        cancelled.result(WAIT)
    undisturbed = stage.edit("extract", 60)
    assert result.attempts == 2
    assert np.array_equal(stage.samples(job), stage.samples(undisturbed))
