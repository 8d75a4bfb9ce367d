"""A recogniser in real workers that are killed, drained and cancelled, and chosen where Audio-Omni may not be."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet import Client, DeadlineExceeded, JobCancelled, JobHandle, JobStatus
from support import services
from support.scripted_fleet import WAIT, ScriptedFleet, ScriptedWorker
from support.speech.recogniser_folders import LANGUAGES, write_tiny_whisper

RATE = 8000


@dataclass
class Stage:
    """A fleet whose second model is the recogniser."""

    fleet: ScriptedFleet
    checkpoint: Path
    omni: Client
    folder: Path

    def start(self) -> ScriptedWorker:
        queue = self.fleet.settings.queue_of("tiny-whisper")
        checkpoint = str(self.checkpoint)
        return self.fleet.start(SCRIPTED_ENGINE="real", OMNIFLEET_CHECKPOINT=checkpoint, OMNIFLEET_QUEUE=queue)

    def transcribe(self, seconds: int, **more: Any) -> JobHandle[Any]:
        """Transcribe so many seconds of bursts of noise."""
        path, random = self.folder / f"{seconds}.wav", np.random.default_rng(seconds)
        bursts = np.repeat(np.arange(seconds) % 5 > 0, RATE)
        soundfile.write(path, bursts * random.standard_normal(seconds * RATE) / 10, RATE, subtype="PCM_16")
        fields: dict[str, Any] = {"commercial": True, "timestamps": "word", "language": "en", **more}
        return self.omni.understand(task="transcribe", audio=path, **fields)


def wait_until_begun(job: JobHandle[Any]) -> None:
    services.wait_until(lambda: job.progress().step > 0, WAIT, "the first stretch to be heard")


@pytest.fixture
def stage(scripted: ScriptedFleet, tmp_path: Path) -> Iterator[Stage]:
    checkpoint = write_tiny_whisper(tmp_path / "tiny-whisper")
    with Client(scripted.settings.model_copy(update={"models": "audio-omni,tiny-whisper"})) as omni:
        yield Stage(scripted, checkpoint, omni, tmp_path)


def test_a_killed_workers_recording_is_heard_by_another_as_if_nothing_had_been(stage: Stage) -> None:
    first = stage.start()
    services.wait_until(lambda: any(one.live for one in stage.omni.models()), WAIT, "the worker's report")
    job = stage.transcribe(600)
    wait_until_begun(job)

    first.kill()
    stage.start()

    result, undisturbed = job.result(WAIT), stage.transcribe(600).result(WAIT)
    assert result.attempts == 2
    assert (result.text, result.record.transcript) == (undisturbed.text, undisturbed.record.transcript)
    assert (result.model.name, result.model.licence) == ("tiny-whisper", "mit")


def test_a_streamed_recordings_parts_are_its_text_whoever_hears_them(stage: Stage) -> None:
    # The tiny model writes letters only where it tells no times.
    stage.checkpoint = write_tiny_whisper(stage.folder / "untimed" / "tiny-whisper", word_times=False)
    first = stage.start()
    services.wait_until(lambda: any(one.live for one in stage.omni.models()), WAIT, "the worker's report")
    job = stage.transcribe(600, timestamps=None, stream=True)
    parts = job.stream(timeout=WAIT)
    given = [next(parts)]

    first.kill()
    stage.start()
    given += parts

    assert [one.number for one in given] == list(range(1, len(given) + 1)) and len(given) > 20
    text, undisturbed = job.result(WAIT).text, stage.transcribe(600, timestamps=None).result(WAIT)
    assert text and "".join(one.text or "" for one in given) == text == undisturbed.text


def test_a_cancelled_recording_makes_room_for_others_and_a_late_one_is_given_up(stage: Stage) -> None:
    stage.start()
    services.wait_until(lambda: any(one.live for one in stage.omni.models()), WAIT, "the worker's report")
    job = stage.transcribe(1200)
    wait_until_begun(job)

    job.cancel()

    with pytest.raises(JobCancelled):
        job.result(WAIT)
    with pytest.raises(DeadlineExceeded):
        stage.transcribe(1200, deadline=1.0).result(WAIT)
    heard = stage.transcribe(3, language=None).result(WAIT).record.transcript
    assert heard is not None and heard.language in LANGUAGES


def test_a_drained_worker_finishes_what_it_hears(stage: Stage) -> None:
    worker = stage.start()
    services.wait_until(lambda: any(one.live for one in stage.omni.models()), WAIT, "the worker's report")
    job = stage.transcribe(60)
    wait_until_begun(job)

    worker.signal(signal.SIGTERM)
    worker.wait()

    assert job.status() is JobStatus.SUCCEEDED
    assert job.result(1).attempts == 1
