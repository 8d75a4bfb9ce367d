"""Real workers that are killed or drained in the middle of long jobs: the next one goes on, to the same result."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from signal import SIGTERM
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet import AudioResult, Client, FleetSettings, JobHandle
from omnifleet_shared.storage import Storage, open_storage
from omnifleet_worker.jobs.parts.requests_in_turn import AT_ONCE
from support import services
from support.data import media_files
from support.scripted_fleet import LEASE, WAIT, ScriptedFleet, ScriptedWorker

MUSIC_SECONDS, MUSIC_WINDOWS = 70, 7
EDIT_SECONDS, EDIT_WINDOWS = 95, 11
SPOKEN_SECONDS, SPOKEN_PARTS = 301, 13
ANSWERS = AT_ONCE["chat"]
"""Parts of a transcript that are in the engine together."""
SENTENCES = "The first sentence is about the weather and the sea. " * 6

End = Callable[[ScriptedWorker], None]


def kill(worker: ScriptedWorker) -> None:
    worker.kill()


def drain(worker: ScriptedWorker) -> None:
    worker.signal(SIGTERM)
    worker.wait()


@pytest.fixture
def in_bucket(scripted: ScriptedFleet, bucket: str, s3_server: services.S3Server) -> Iterator[ScriptedFleet]:
    """A fleet with its storage behind an S3 API."""
    redis_url, endpoint = scripted.settings.redis_url, s3_server.endpoint
    settings = FleetSettings(redis_url=redis_url, storage=f"s3://{bucket}/home", s3_endpoint=endpoint, lease=LEASE)
    with Client(settings) as omni:
        yield replace(scripted, settings=settings, omni=omni, workers=scripted.workers)


@pytest.fixture
def fleet(request: pytest.FixtureRequest) -> ScriptedFleet:
    """The fleet that the test names."""
    named: ScriptedFleet = request.getfixturevalue(request.param)
    return named


def start(fleet: ScriptedFleet, **more: str) -> ScriptedWorker:
    """Start a worker that hands back at once when it is told to end."""
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    endpoint = fleet.settings.s3_endpoint
    s3 = {"OMNIFLEET_S3_ENDPOINT": endpoint, **credentials} if endpoint else {}
    return fleet.start(OMNIFLEET_GRACE="0", **s3, **more)


def music(fleet: ScriptedFleet, steps: int = 6) -> JobHandle[AudioResult]:
    return fleet.omni.generate("t2m", "a waltz", seconds=MUSIC_SECONDS, steps=steps, seed=11)


def edit(fleet: ScriptedFleet) -> JobHandle[AudioResult]:
    source = media_files.wav(EDIT_SECONDS, 44_100)
    return fleet.omni.edit("add", source, desc="rain", steps=12, seed=11)


def transcribe(fleet: ScriptedFleet, max_new_tokens: int) -> JobHandle[Any]:
    source = media_files.wav(SPOKEN_SECONDS, 8_000)
    return fleet.omni.understand("transcribe", source, max_new_tokens=max_new_tokens)


def parts_of(storage: Storage, job_id: str) -> int:
    """Finished ones; the answers that are being written are in one object beside them."""
    return sum(not one.uri.endswith(".drafts") for one in storage.list(f"parts/{job_id}."))


def finished(workers: Sequence[ScriptedWorker]) -> Counter[str]:
    """How often each window was made, by what was asked for."""
    lines = [line for worker in workers for line in worker.lines()]
    return Counter(line["asked"] for line in lines if line.get("action") == "scripted_finished")


def steps_taken(workers: Sequence[ScriptedWorker]) -> Counter[str]:
    """How often each step of each window, or token of each answer, was computed."""
    lines = [line for worker in workers for line in worker.lines()]
    return Counter(one for line in lines if line.get("action") == "scripted_step" for one in line["taken"])


def resumed_from(worker: ScriptedWorker, job_id: str) -> int:
    (done,) = [line for line in worker.lines() if line.get("action") == "job_done" and line["job_id"] == job_id]
    return int(done["resumed_from"])


def samples(result: AudioResult) -> np.ndarray:
    return soundfile.read(io.BytesIO(result.audio.read()), dtype="int16")[0]


@pytest.mark.parametrize(("fleet", "end"), [("scripted", kill), ("in_bucket", drain)], indirect=["fleet"])
def test_music_goes_on_at_its_last_window(fleet: ScriptedFleet, end: End) -> None:
    storage, first = open_storage(fleet.settings), start(fleet)
    job = music(fleet)
    services.wait_until(lambda: parts_of(storage, job.id) >= 3, WAIT, "three windows")

    end(first)
    second = start(fleet)

    result = job.result(WAIT)
    made = finished([first, second])
    assert result.attempts == 2
    assert len(made) == MUSIC_WINDOWS
    assert made.total() <= MUSIC_WINDOWS + 1
    assert resumed_from(second, job.id) == MUSIC_WINDOWS - finished([second]).total() >= 3
    assert second.metrics().value("omnifleet_job_parts_resumed_total") == resumed_from(second, job.id)
    assert np.array_equal(samples(result), samples(music(fleet).result(WAIT)))
    services.wait_until(lambda: parts_of(storage, job.id) == 0, WAIT, "nothing is left of the parts")


LONG: dict[str, tuple[Callable[[ScriptedFleet], JobHandle[Any]], int, int]] = {
    "an edit": (edit, EDIT_WINDOWS, 12),
    "speech": (lambda fleet: fleet.omni.generate("tts", SENTENCES, steps=12, seed=3), 6, 12),
    "a transcript": (lambda fleet: transcribe(fleet, max_new_tokens=64), SPOKEN_PARTS, 64),
}
"""Jobs, how many windows or parts each has, and the steps or tokens of one."""


@pytest.mark.parametrize(("name", "dies_at"), [("an edit", 30), ("speech", 26), ("a transcript", 40)])
def test_wherever_a_worker_is_killed_one_window_at_most_is_computed_twice(
    scripted: ScriptedFleet, name: str, dies_at: int
) -> None:
    send, parts, steps = LONG[name]
    first = start(scripted, SCRIPTED_DIES_AT=str(dies_at))
    job = send(scripted)
    first.wait()
    second = start(scripted)

    result = job.result(WAIT)

    taken = steps_taken([first, second])
    assert result.attempts == 2
    assert len(taken) == parts * steps
    assert taken.total() - len(taken) <= steps
    assert steps_taken([first]).total() >= dies_at - 1
    if isinstance(result, AudioResult):
        assert np.array_equal(samples(result), samples(send(scripted).result(WAIT)))
    else:
        assert result.text.count("What is said?") == parts


def test_a_long_recording_is_not_transcribed_twice(scripted: ScriptedFleet) -> None:
    storage, first = open_storage(scripted.settings), start(scripted)
    job = transcribe(scripted, max_new_tokens=12)
    services.wait_until(lambda: parts_of(storage, job.id) >= ANSWERS, WAIT, "the first parts")

    drain(first)
    second = start(scripted)

    said = job.result(WAIT).text
    assert said.count("What is said?") == SPOKEN_PARTS
    assert resumed_from(second, job.id) >= ANSWERS
    assert finished([first, second]).total() == len(finished([first, second])) == SPOKEN_PARTS
    services.wait_until(lambda: not list(storage.list(f"parts/{job.id}.")), WAIT, "nothing is left of the parts")


def test_a_job_that_is_cancelled_leaves_no_parts(scripted: ScriptedFleet) -> None:
    storage = open_storage(scripted.settings)
    start(scripted)
    job = music(scripted, steps=20)
    services.wait_until(lambda: parts_of(storage, job.id) >= 1, WAIT, "a window")

    job.cancel()

    services.wait_until(lambda: job.status().is_final, WAIT, "an end")
    services.wait_until(lambda: parts_of(storage, job.id) == 0, WAIT, "nothing is left of the parts")
