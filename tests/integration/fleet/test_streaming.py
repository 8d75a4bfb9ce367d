"""Streams of real workers: read while they run, killed between two parts, cancelled, and read again afterwards."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile
from omnifleet import AsyncClient, AudioResult, DeadlineExceeded, JobCancelled, JobHandle, Part, TextResult
from omnifleet_shared.job_state.store import JobStates
from omnifleet_worker.jobs.streaming.job_stream import INTERVAL
from support import services
from support.data import media_files
from support.scripted_fleet import WAIT, ScriptedFleet

SECONDS, WINDOWS = 70, 7
SENTENCES = "One more word is said in this sentence of them. " * 40


def music(fleet: ScriptedFleet, **options: Any) -> JobHandle[AudioResult]:
    defaults: dict[str, Any] = {"seconds": SECONDS, "steps": 6, "seed": 11, "stream": True}
    return fleet.omni.generate("t2m", "a waltz", **defaults | options)


def speech(fleet: ScriptedFleet) -> JobHandle[AudioResult]:
    return fleet.omni.generate("tts", SENTENCES, steps=8, seed=3, stream=True)


def samples(file: Any) -> np.ndarray:
    decoded: Any = soundfile.read(io.BytesIO(file.read()), dtype="int16")[0]
    return decoded


def joined(parts: list[Part]) -> np.ndarray:
    return np.concatenate([samples(part.audio) for part in parts])


def given_out(fleet: ScriptedFleet, job: JobHandle[Any]) -> int:
    states = JobStates.connect(fleet.settings)
    try:
        return len(states.read_parts(job.id, 0))
    finally:
        states.close()


def reading(job: JobHandle[Any], seen: list[tuple[Part, bool]]) -> threading.Thread:
    """Read the stream on a thread, with each part whether the job was running still."""

    def read() -> None:
        for part in job.stream(timeout=WAIT):
            seen.append((part, not job.status().is_final))

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_windows_are_there_as_they_are_done_and_are_the_result(scripted: ScriptedFleet) -> None:
    scripted.start()
    job, seen = music(scripted), list[tuple[Part, bool]]()

    with scripted.held(15):  # steps of 42
        reader = reading(job, seen)
        services.wait_until(lambda: bool(seen), WAIT, "the first window")
    reader.join()

    parts = [part for part, _ in seen]
    assert [part.number for part in parts] == list(range(1, WINDOWS + 1))
    assert seen[0][1]
    assert np.array_equal(joined(parts), samples(job.result(WAIT).audio))
    assert [part.number for part in job.stream(after=4)] == [5, 6, 7]
    assert np.array_equal(joined(list(job.stream())), joined(parts))


@pytest.mark.parametrize("send", [music, speech])
def test_a_worker_killed_between_two_parts_repeats_and_contradicts_nothing(
    scripted: ScriptedFleet, send: Callable[[ScriptedFleet], JobHandle[AudioResult]]
) -> None:
    first = scripted.start()
    job, seen = send(scripted), list[tuple[Part, bool]]()
    reader = reading(job, seen)
    services.wait_until(lambda: given_out(scripted, job) >= 2, WAIT, "two parts")

    first.kill()
    scripted.start()

    reader.join()
    result = job.result(WAIT)
    parts = [part for part, _ in seen]
    assert result.attempts == 2
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert np.array_equal(joined(parts), samples(result.audio))
    assert np.array_equal(joined(parts), samples(send(scripted).result(WAIT).audio))


def ask(fleet: ScriptedFleet, **options: Any) -> JobHandle[TextResult]:
    defaults: dict[str, Any] = {"max_new_tokens": 60, "stream": True}
    return fleet.omni.understand(question="What is heard, and what not? " * 10, **defaults | options)


def test_an_answer_is_there_as_it_is_written(scripted: ScriptedFleet) -> None:
    scripted.start()
    start = time.monotonic()
    job, seen = ask(scripted), list[tuple[Part, bool]]()

    with scripted.held(20):  # tokens of 60
        reader = reading(job, seen)
        services.wait_until(lambda: bool(seen), WAIT, "the first words")
    reader.join()

    assert "".join(str(part.text) for part, _ in seen) == job.result().text
    # No more than one in 0.25 s, however long its 60 tokens take, with the first one and the last.
    assert 2 <= len(seen) <= 2 + (time.monotonic() - start) / INTERVAL
    assert seen[0][1]


def test_an_answer_whose_worker_is_killed_goes_on_with_the_words_that_were_given_out(scripted: ScriptedFleet) -> None:
    first = scripted.start()
    job, seen = ask(scripted), list[tuple[Part, bool]]()
    reader = reading(job, seen)
    services.wait_until(lambda: given_out(scripted, job) >= 2, WAIT, "two parts")

    first.kill()
    second = scripted.start()

    reader.join()
    result = job.result(WAIT)
    assert [part.number for part, _ in seen] == list(range(1, len(seen) + 1))
    assert "".join(str(part.text) for part, _ in seen) == result.text
    assert result.text.endswith(f"by {second.pid}")
    assert result.attempts == 2


def test_a_long_recording_is_read_part_by_part_and_no_part_is_written_again(scripted: ScriptedFleet) -> None:
    first = scripted.start()
    source = media_files.wav(301, 8_000)
    job = scripted.omni.understand("transcribe", source, max_new_tokens=12, stream=True)
    services.wait_until(lambda: given_out(scripted, job) >= 2, WAIT, "two parts")

    first.kill()
    second = scripted.start()

    text = job.result(WAIT).text
    assert "".join(str(part.text) for part in job.stream()) == text
    assert 2 <= text.count(f"by {first.pid}") < 13
    assert text.count(f"by {first.pid}") + text.count(f"by {second.pid}") == 13


def test_a_stream_ends_with_the_jobs_own_error(scripted: ScriptedFleet) -> None:
    scripted.start()
    cancelled, late = music(scripted, steps=20), music(scripted, steps=40, deadline=8)

    with pytest.raises(JobCancelled):
        for part in cancelled.stream(timeout=WAIT):
            assert part.audio is not None
            cancelled.cancel()
    with pytest.raises(DeadlineExceeded):
        list(late.stream(timeout=WAIT))

    assert given_out(scripted, cancelled) >= 1


def test_a_job_that_is_not_streamed_has_its_result_as_its_only_part(scripted: ScriptedFleet) -> None:
    scripted.start()
    job, asked = music(scripted, stream=False, steps=2), scripted.omni.understand("What is heard?")

    (part,), (answer,) = job.stream(timeout=WAIT), asked.stream(timeout=WAIT)

    assert (part.number, part.kind) == (1, "audio")
    assert np.array_equal(joined([part]), samples(job.result().audio))
    assert (answer.kind, answer.text) == ("text", asked.result().text)
    assert list(job.stream(after=1)) == []


def test_an_event_loop_reads_streams_side_by_side(scripted: ScriptedFleet) -> None:
    scripted.start()

    async def read(omni: AsyncClient, seed: int) -> tuple[list[Part], AudioResult]:
        job = await omni.generate("t2m", "a waltz", seconds=30, steps=2, seed=seed, stream=True)
        return [part async for part in job.stream(timeout=WAIT)], await job.result()

    async def read_all() -> list[tuple[list[Part], AudioResult]]:
        async with AsyncClient(scripted.settings) as omni:
            return await asyncio.gather(*(read(omni, seed) for seed in range(3)))

    for parts, result in asyncio.run(read_all()):
        assert [part.number for part in parts] == [1, 2, 3]
        assert np.array_equal(joined(parts), samples(result.audio))
