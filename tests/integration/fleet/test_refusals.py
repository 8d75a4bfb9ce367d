"""Bad input gets a typed error at the producer, and the worker that met it does the next job all the same."""

from __future__ import annotations

import base64
import json
import pickle
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from omnifleet import (
    Client,
    FleetSettings,
    ForeignURI,
    InvalidJob,
    InvalidMessage,
    JobCancelled,
    JobStatus,
    LanguageNotSupported,
    MediaEmpty,
    MediaNotFound,
    MediaTooLong,
    MediaUnreadable,
    OmnifleetError,
    SchemaTooNew,
    UnknownTask,
)
from omnifleet_shared.job_state.store import JobStates
from omnifleet_shared.keys import LEASED_KEY
from redis import Redis
from support import processes, services
from support.data import media_files

WAIT = 240.0
SOUND = media_files.wav(1.0, 16_000)


@pytest.fixture(autouse=True)
def _worker_goes_on(omni: Client, fleet_worker: processes.Process) -> Iterator[None]:
    """After every test: the same process does a good job."""
    yield
    assert omni.generate("t2a", "a bell", seconds=1, steps=1).result(WAIT).audio.seconds == 1
    assert fleet_worker.process.poll() is None


def nan_wav() -> bytes:
    samples = media_files.tone(0.5, 16_000)
    samples[0, 100] = np.nan
    return media_files.encode("wav-float", samples, 16_000)


def three_hours() -> bytes:
    return media_files.encode("flac", np.zeros((1, 3 * 3600 * 8_000), np.float32), 8_000)


AT_SUBMIT: dict[str, tuple[Callable[[Client], object], type[OmnifleetError], str]] = {
    "unknown task": (lambda o: o.edit("Ad", SOUND, desc="rain"), UnknownTask, "Did you mean 'add'"),
    "missing media": (lambda o: o.understand("transcribe"), InvalidJob, "audio"),
    "desc and source": (lambda o: o.edit("add", SOUND, desc="a", source="b"), InvalidJob, "add takes no source"),
    "style without target": (lambda o: o.edit("style", SOUND, source="b"), InvalidJob, "target"),
    "zero-length file": (lambda o: o.edit("add", b"", desc="rain"), MediaEmpty, "audio"),
    "no such file": (lambda o: o.edit("add", "/no/such.wav", desc="rain"), MediaNotFound, "audio"),
    "foreign URI": (lambda o: o.edit("add", "s3://other/inputs/x", desc="rain"), ForeignURI, "outside"),
    "local URI": (lambda o: o.edit("add", "file:///etc/passwd", desc="rain"), ForeignURI, "outside"),
    "web URI": (lambda o: o.edit("add", "http://169.254.169.254/", desc="rain"), ForeignURI, "audio"),
    "Russian by code": (
        lambda o: o.generate("tts", "Hello", language="ru"),
        LanguageNotSupported,
        "en, zh, ja, fr, de",
    ),
    "Russian by script": (lambda o: o.generate("tts", "Привет, мир"), LanguageNotSupported, "another model"),
    "300 seconds": (lambda o: o.generate("t2a", "rain", seconds=3000), InvalidJob, "seconds"),
}


@pytest.mark.parametrize("case", AT_SUBMIT)
def test_what_the_producer_can_tell_is_refused_before_anything_is_sent(omni: Client, case: str) -> None:
    send, error, said = AT_SUBMIT[case]

    with pytest.raises(error, match=said):
        send(omni)


AT_THE_WORKER: dict[str, tuple[Callable[[], bytes], type[OmnifleetError]]] = {
    "text called wav": (lambda: b"This is no sound at all.\n" * 50, MediaUnreadable),
    "truncated header": (lambda: SOUND[:20], MediaUnreadable),
    "cut in the middle": (lambda: media_files.cut(media_files.wav(3.0), 0.5), MediaUnreadable),
    "no samples": (lambda: media_files.wav(0.0), MediaEmpty),
    "NaN samples": (nan_wav, MediaUnreadable),
    "three hours": (three_hours, MediaTooLong),
    "eleven minutes": (lambda: media_files.wav(660.0, 8_000), MediaTooLong),
}


@pytest.mark.parametrize("case", AT_THE_WORKER)
def test_what_only_decoding_can_tell_comes_back_as_the_same_class(omni: Client, case: str) -> None:
    make, error = AT_THE_WORKER[case]

    job = omni.edit("add", make(), desc="rain", steps=1)

    with pytest.raises(error, match=r"^audio: ") as caught:
        job.result(WAIT)
    assert type(caught.value) is error
    assert caught.value.remedy
    assert job.status() is JobStatus.FAILED


def test_an_input_that_vanished_is_named(omni: Client, settings: FleetSettings) -> None:
    job = omni.edit("add", SOUND, desc="rain", steps=1)
    job.result(WAIT)
    message = sent_again(omni, job.id)
    message["task"]["audio"]["uri"] += "0"
    message["task"]["audio"]["sha256"] = None

    with pytest.raises(MediaNotFound, match="audio"):
        send_raw(omni, settings, [[], {"job": message}, {}], message["job_id"]).result(WAIT)


def sent_again(omni: Client, job_id: str) -> dict[str, Any]:
    """A good job record under a new id, as a producer without our client would write it."""
    source = omni._storage.describe_input(__import__("io").BytesIO(SOUND))
    return {
        "schema_version": 1,
        "job_id": uuid.uuid4().hex,
        "namespace": "edit",
        "task": {"name": "add", "audio": source.model_dump(mode="json"), "desc": "rain"},
        "steps": 1,
        "submitted_at": datetime.now(UTC).isoformat(),
    }


def send_raw(omni: Client, settings: FleetSettings, body: object, job_id: str, **changes: str) -> Any:
    """Push a message to the queue as a producer without our client would, and give the handle of its job."""
    states = JobStates.connect(settings)
    services.mark_queued(states, job_id)
    states.close()
    with Redis.from_url(settings.redis_url) as redis:
        push(redis, settings, body, job_id, **changes)
    return omni.job(job_id)


def push(
    redis: Redis,
    settings: FleetSettings,
    body: object,
    job_id: str,
    content_type: str = "application/json",
    **headers: str,
) -> None:
    """A message as kombu lays it out, with whatever body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    properties = {
        "correlation_id": job_id,
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": settings.queue},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": uuid.uuid4().hex,
    }
    message = {
        "body": base64.b64encode(data).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {"lang": "py", "task": "omnifleet.edit", "id": job_id, "root_id": job_id} | headers,
        "properties": properties,
    }
    redis.lpush(settings.queue, json.dumps(message))


def wait_until_taken_off(redis: Redis, settings: FleetSettings) -> None:
    leased = LEASED_KEY.format(queue=settings.queue)
    services.wait_until(
        lambda: redis.llen(settings.queue) == 0 and redis.hlen(leased) == 0, what="the message is off the queue"
    )


def test_a_message_of_a_producer_without_our_client_is_as_good(omni: Client, settings: FleetSettings) -> None:
    message = sent_again(omni, "")

    result = send_raw(omni, settings, [[], {"job": message}, {}], message["job_id"]).result(WAIT)

    assert result.audio.seconds == 1


UNREADABLE: dict[str, tuple[object, type[OmnifleetError]]] = {
    "not JSON": (b"{nope", InvalidMessage),
    "not UTF-8": (b"\xff\xfe\x00", InvalidMessage),
    "a number": (5, InvalidMessage),
    "a string of three": ("abc", InvalidMessage),
    "nothing": ([None, None, None], InvalidMessage),
    "an object": ({"args": 1}, InvalidMessage),
    "no job": ([[], {}, {}], InvalidMessage),
    "job is a number": ([[], {"job": 5}, {}], InvalidMessage),
    "no version": ([[], {"job": {"namespace": "edit"}}, {}], InvalidMessage),
    "newer version": ([[], {"job": {"schema_version": 99}}, {}], SchemaTooNew),
    "another job's id": (
        [
            [],
            {
                "job": {
                    "schema_version": 1,
                    "job_id": "x",
                    "namespace": "generate",
                    "task": {"name": "t2a", "text": "a"},
                }
            },
            {},
        ],
        InvalidMessage,
    ),
    "deeply nested": (b"[" * 100_000, InvalidMessage),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_message_that_cannot_be_read_is_answered_and_taken_off(
    omni: Client, settings: FleetSettings, case: str
) -> None:
    body, error = UNREADABLE[case]

    job = send_raw(omni, settings, body, uuid.uuid4().hex)

    with pytest.raises(error):
        job.result(WAIT)
    with Redis.from_url(settings.redis_url) as redis:
        wait_until_taken_off(redis, settings)


def test_a_pickle_is_refused_unopened(omni: Client, settings: FleetSettings) -> None:
    body = pickle.dumps(([], {"job": 1}, {}))

    job = send_raw(omni, settings, body, uuid.uuid4().hex, content_type="application/x-python-serialize")

    with pytest.raises(InvalidMessage, match="pickle"):
        job.result(WAIT)


def test_a_task_of_a_newer_release_is_answered(omni: Client, settings: FleetSettings) -> None:
    job = send_raw(omni, settings, [[], {}, {}], uuid.uuid4().hex, task="omnifleet.translate")

    with pytest.raises(InvalidMessage, match=r"no task .*omnifleet\.translate"):
        job.result(WAIT)


@pytest.mark.parametrize("garbage", [b"garbage", b"\xff\xfe", b"5", b"[]", b"{}", b"null", b'{"properties": {}}'])
def test_what_is_no_message_at_all_is_dropped(omni: Client, settings: FleetSettings, garbage: bytes) -> None:
    with Redis.from_url(settings.redis_url) as redis:
        redis.lpush(settings.queue, garbage)

        wait_until_taken_off(redis, settings)


def test_a_running_job_can_be_cancelled(omni: Client) -> None:
    job = omni.generate("t2a", "rain", steps=1000)
    services.wait_until(lambda: job.progress().step > 0, what="progress")

    job.cancel()

    with pytest.raises(JobCancelled):
        job.result(WAIT)
    assert job.status() is JobStatus.CANCELLED
    assert job.progress().step < 1000


def test_progress_only_grows_and_tells_the_time_left(omni: Client) -> None:
    job = omni.generate("t2a", "rain", seconds=1, steps=60)
    seen = []
    while not job.status().is_final:
        seen.append(job.progress())

    steps = [progress.step for progress in seen]
    assert steps == sorted(steps)
    assert any(0 < step < 60 for step in steps)
    assert any(progress.eta is not None for progress in seen)
    job.cancel()


def test_a_deadline_ends_a_running_job(omni: Client) -> None:
    job = omni.generate("t2a", "rain", steps=1000, deadline=2.0)

    with pytest.raises(OmnifleetError, match="deadline"):
        job.result(WAIT)


def test_a_forged_message_cannot_overwrite_the_outcome_of_the_job_whose_id_it_bears(
    omni: Client, settings: FleetSettings
) -> None:
    job = omni.generate("t2a", "a bell", seconds=1, steps=1)
    made = job.result(WAIT)
    with Redis.from_url(settings.redis_url) as redis:
        push(redis, settings, b"{nope", job.id)

        wait_until_taken_off(redis, settings)

    assert job.result(WAIT).audio.sha256 == made.audio.sha256
