"""The fake that users test with."""

from __future__ import annotations

import io
import threading

import pytest
import soundfile
from omnifleet import Client, IdempotencyConflict, InvalidJob, JobCancelled, JobStatus, MediaTooLong, Progress
from omnifleet.testing import FakeClient, FakeFleet

SOUND = b"RIFF and so on"


def test_it_is_a_client_that_keeps_what_was_submitted() -> None:
    with FakeClient() as omni:
        job = omni.edit("Add", SOUND, desc="rain sounds")

    assert isinstance(omni, Client)
    assert [job.job_id for job in omni.jobs] == [job.id]
    assert SOUND in omni.fleet.storage.objects.values()


@pytest.mark.parametrize("format", ["wav", "flac", "mp3", "ogg"])
def test_audio_is_of_the_seconds_and_format_asked_for(format: str) -> None:
    audio = FakeClient().generate("t2m", "a waltz", seconds=10, format=format).result().audio

    info = soundfile.info(io.BytesIO(audio.read()))
    assert info.format.lower() == audio.format == format
    assert info.duration == pytest.approx(10, abs=0.1)


def test_answers_are_scripted_by_job() -> None:
    spoken = FakeClient().generate("t2a", "x", seconds=0.2, format="flac").result().audio.read()
    omni = FakeClient(lambda job: {"transcribe": "hello", "t2a": spoken}.get(job.task.name))

    assert omni.understand("transcribe", SOUND).result().text == "hello"
    assert omni.generate("t2a", "rain").result().audio.format == "flac"
    assert omni.understand("caption", SOUND).result().text == "A fake answer to caption."


def test_failures_and_cancellation_are_scripted() -> None:
    omni = FakeClient(lambda job: MediaTooLong("it is 400 s long", "audio"))
    failed = omni.understand("transcribe", SOUND)
    omni.fleet.answer = lambda job: JobCancelled("someone did")
    cancelled = omni.understand("transcribe", SOUND)

    assert (failed.status(), cancelled.status()) == (JobStatus.FAILED, JobStatus.CANCELLED)
    with pytest.raises(MediaTooLong, match="400 s"):
        failed.result()


def test_an_answer_of_the_wrong_kind_is_a_mistake_in_the_test() -> None:
    with pytest.raises(TypeError, match="makes audio"):
        FakeClient(lambda job: "text").generate("t2a", "rain")
    with pytest.raises(TypeError, match="makes text"):
        FakeClient(lambda job: b"bytes").understand("caption", SOUND)


def test_requests_are_refused_as_by_a_real_client() -> None:
    with pytest.raises(InvalidJob, match="at most 300 s"):
        FakeClient().generate("t2a", "rain", seconds=301)


def test_a_held_job_can_be_watched_and_released() -> None:
    omni = FakeClient()
    omni.fleet.hold()
    first, second = omni.understand("caption", SOUND), omni.understand("caption", SOUND)
    assert (first.status(), first.progress()) == (JobStatus.QUEUED, Progress())

    omni.fleet.advance(first.id, 37, 100, eta=4.1)
    assert (first.status(), first.progress()) == (JobStatus.RUNNING, Progress(step=37, steps=100, eta=4.1))

    omni.fleet.release(first.id)
    assert (first.status(), second.status()) == (JobStatus.SUCCEEDED, JobStatus.QUEUED)

    omni.fleet.release()
    assert second.status() is JobStatus.SUCCEEDED
    assert omni.understand("caption", SOUND).status() is JobStatus.SUCCEEDED


def test_a_waiter_wakes_when_another_thread_releases() -> None:
    omni = FakeClient()
    omni.fleet.hold()
    job = omni.understand("caption", SOUND)
    release = threading.Timer(0.05, omni.fleet.release)
    release.start()

    assert job.result(timeout=10).text == "A fake answer to caption."
    release.join()


def test_cancelling_works_until_the_job_is_done() -> None:
    omni = FakeClient()
    done = omni.understand("caption", SOUND)
    omni.fleet.hold()
    held = omni.understand("caption", SOUND)

    done.cancel()
    held.cancel()
    omni.fleet.release()

    assert (done.status(), held.status()) == (JobStatus.SUCCEEDED, JobStatus.CANCELLED)
    with pytest.raises(JobCancelled):
        held.result()


def test_two_clients_share_a_fleet() -> None:
    fleet = FakeFleet()
    FakeClient(fleet=fleet).understand("caption", SOUND)

    assert len(FakeClient(fleet=fleet).jobs) == 1


def test_another_request_under_the_same_key_is_a_conflict() -> None:
    omni = FakeClient()
    first = omni.generate("t2a", "rain", idempotency_key="order-7")

    assert omni.generate("t2a", "rain", idempotency_key="order-7").id == first.id
    with pytest.raises(IdempotencyConflict, match="text"):
        omni.generate("t2a", "snow", idempotency_key="order-7")


def test_streamed_jobs_come_in_parts() -> None:
    omni = FakeClient(lambda job: "It rains a lot." if job.namespace == "understand" else None)
    spoken = omni.generate("t2m", "a waltz", seconds=25, stream=True)
    answered = omni.understand("caption", SOUND, stream=True)

    parts = list(spoken.stream())
    assert [part.audio.seconds for part in parts if part.audio] == [10, 10, 5]
    assert [part.text for part in answered.stream()] == ["It", " rains", " a", " lot."]
    assert [part.text for part in answered.stream(after=2)] == [" a", " lot."]
    assert [part.kind for part in omni.understand("caption", SOUND).stream()] == ["text"]
