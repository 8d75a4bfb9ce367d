"""Models that speak, in real workers that are killed, drained and cancelled: by a script, VoxCPM2, behind a server."""

from __future__ import annotations

import json
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
from support.speech.fake_server import FakeSpeechServer
from support.speech.scripted_model import speech_card
from support.speech.vits_folder import TEXTS, write_tiny_vits
from support.speech.voxcpm_folder import write_tiny_voxcpm

TEXT = "Please hold on while this is said: it takes some seconds."


@dataclass
class Stage:
    """A fleet, and the server that its workers may speak through."""

    fleet: ScriptedFleet
    server: FakeSpeechServer
    environment: dict[str, str]
    omni: Client
    places: int
    held_until: Path

    @property
    def is_remote(self) -> bool:
        return self.places == 4

    def start(self) -> ScriptedWorker:
        return self.fleet.start(**self.environment)

    def speak(self, text: str = TEXT, **more: Any) -> JobHandle[Any]:
        return self.omni.generate("tts", text=text, seed=3, model="scripted-speech", **more)

    def wait_until_said(self, job: JobHandle[Any]) -> None:
        """Until the job's text is being said."""

        def is_said() -> bool:
            return bool(self.server.asked) if self.is_remote else job.progress().step > 2

        services.wait_until(is_said, WAIT, "the text to be said")

    def go_on(self) -> None:
        """Let the server answer, and VoxCPM2 say the rest, now and from now on."""
        self.held_until.touch()
        self.server.silent = False
        self.server.speak.set()


PLACES = {"scripted": 2, "voxcpm": 1, "server": 4}


@pytest.fixture(params=PLACES)
def stage(request: pytest.FixtureRequest, scripted: ScriptedFleet, tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path / "model"
    folder.mkdir()
    card = speech_card(engine="fish", sample_rate=44_100).model_dump(mode="json")
    if request.param == "voxcpm":
        write_tiny_voxcpm(folder, endless=True)
        card = speech_card(engine="voxcpm", sample_rate=48_000).model_dump(mode="json")
    (folder / "card.json").write_text(json.dumps(card))
    with FakeSpeechServer(silent=True).running() as server:
        environment = {
            "SCRIPTED_ENGINE": "scripted" if request.param == "scripted" else "real",
            "HELD_UNTIL": str(tmp_path / "go-on"),
            "OMNIFLEET_DEVICE": "cpu",
            **({"OMNIFLEET_ENGINE": "support.speech.held_voxcpm"} if request.param == "voxcpm" else {}),
            "OMNIFLEET_CHECKPOINT": str(folder),
            "OMNIFLEET_SERVER_URL": server.url,
        }
        # Its own queue, which the fleet of these tests has no other model in.
        with Client(scripted.settings.model_copy(update={"models": "scripted-speech=audio-omni"})) as omni:
            yield Stage(scripted, server, environment, omni, PLACES[request.param], tmp_path / "go-on")


def samples_of(job: JobHandle[Any], folder: Path) -> np.ndarray:
    path = folder / f"{job.id}.wav"
    job.result(WAIT).save(path)
    samples: np.ndarray = soundfile.read(path)[0]
    return samples


def test_a_killed_workers_text_is_said_by_another_as_if_nothing_had_been(stage: Stage, tmp_path: Path) -> None:
    first = stage.start()
    job = stage.speak()
    stage.wait_until_said(job)

    first.kill()
    stage.start()
    stage.go_on()

    assert job.result(WAIT).attempts == 2
    assert np.array_equal(samples_of(job, tmp_path), samples_of(stage.speak(), tmp_path))


def test_a_cancelled_text_makes_room_for_others(stage: Stage) -> None:
    stage.start()
    job = stage.speak()
    stage.wait_until_said(job)

    job.cancel()

    with pytest.raises(JobCancelled):
        job.result(WAIT)
    if stage.is_remote:
        services.wait_until(lambda: stage.server.gone == 1, WAIT, "the server to be hung up on")
    stage.go_on()
    assert stage.speak("Now.").result(WAIT).attempts == 1


def test_a_text_that_is_late_is_given_up(stage: Stage) -> None:
    stage.start()
    text = TEXT * 40

    job = stage.speak(text, deadline=3.0)

    with pytest.raises(DeadlineExceeded):
        job.result(WAIT)


def test_a_drained_worker_finishes_what_is_being_said(stage: Stage) -> None:
    worker = stage.start()
    job = stage.speak()
    stage.wait_until_said(job)

    worker.signal(signal.SIGTERM)
    stage.go_on()
    worker.wait()

    assert job.status() is JobStatus.SUCCEEDED
    assert job.result(1).attempts == 1


def test_no_more_is_taken_than_can_be_said(stage: Stage) -> None:
    worker = stage.start()
    jobs = [stage.speak("One.") for _ in range(8)]

    assert worker.metrics().value("omnifleet_worker_places") == stage.places + 1
    stage.go_on()
    assert [job.result(WAIT).attempts for job in jobs] == [1] * len(jobs)


@pytest.mark.parametrize("stage", ["server"], indirect=True)
def test_a_server_that_is_away_takes_its_workers_out_of_service(stage: Stage) -> None:
    stage.server.key = "another"
    worker = stage.fleet.start(ready=False, **stage.environment)
    services.wait_until(lambda: "OMNIFLEET_SERVER_KEY" in worker.page("/readyz")[1], WAIT, "the reason")
    job = stage.speak()

    stage.server.key = None
    stage.go_on()

    assert job.result(WAIT).attempts == 1
    services.wait_until(lambda: worker.status("/readyz") == 200, WAIT, "ready again")


def test_a_folder_of_transformers_says_what_the_first_model_may_not(scripted: ScriptedFleet, tmp_path: Path) -> None:
    folder, queue = write_tiny_vits(tmp_path / "tiny-vits"), scripted.settings.queue_of("tiny-vits")
    scripted.start(SCRIPTED_ENGINE="real", OMNIFLEET_CHECKPOINT=str(folder), OMNIFLEET_QUEUE=queue)
    asked = [*TEXTS.items(), *TEXTS.items()]

    with Client(scripted.settings.model_copy(update={"models": "audio-omni,tiny-vits"})) as omni:
        services.wait_until(lambda: any(one.live for one in omni.models()), WAIT, "the worker's report")
        jobs = [omni.generate("tts", text=text, language=code, commercial=True, seed=1) for code, text in asked]
        results = [job.result(WAIT) for job in jobs]

    assert {(one.model.name, one.model.licence) for one in results} == {("tiny-vits", "apache-2.0")}
    assert {one.audio.sample_rate for one in results} == {16_000}
    sounds = [one.audio.read() for one in results]
    assert sounds[:4] == sounds[4:]
    assert len(set(sounds)) == 4
