"""Messages of every release, as they lay in the queue, run by today's worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from omnifleet import AdapterNotFound, AnswerUnreadable, Client, FleetSettings, InvalidJob, JobHandle, OmnifleetError
from omnifleet_shared.broker.submit import Submissions, queue_lists
from omnifleet_shared.keys import BROKER_PRIORITY
from omnifleet_shared.schema.tasks import TASK_NAMES
from redis import Redis
from support import processes, services
from support.data import media_files, released_records

WAIT = 240.0
TEXTS = {f"understand-{task}" for task in ("question", "transcribe", "transcribe-timed", "caption", "streamed", "qa")}
"""What a model with random weights can answer: any text is one. Records and words that it should hear are beyond it."""
OF_OTHER_MODELS = {"generate-tts-routed", "generate-tts-speed", "generate-tts-seconds"}
"""Jobs that a worker of Audio-Omni refuses, wherever they come from."""
OF_REMOVED_ADAPTERS = {"generate-t2a-adapted"}
WORDS = {"edit-speech", "edit-speech-dry", "edit-speech-span", "generate-vc"}


@pytest.fixture(scope="module")
def environment(
    fleet_environment: dict[str, str], s3_server: services.S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """A fleet whose storage holds the files that the messages name."""
    s3 = s3_server.client()
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=released_records.BUCKET)
    files = {"sound.wav": media_files.wav(1.5, 16_000), "film.mp4": media_files.video(1.2)}
    for name, data in files.items():
        s3.put_object(Bucket=released_records.BUCKET, Key=f"media/{name}", Body=data)
    redis = services.RedisServer(services.free_port(), tmp_path_factory.mktemp("redis"))
    with redis.running():
        yield fleet_environment | {
            "OMNIFLEET_REDIS_URL": redis.url,
            "OMNIFLEET_STORAGE": released_records.STORAGE,
            "OMNIFLEET_CALLBACK_HOSTS": "hooks.example.com",
            "OMNIFLEET_CALLBACK_SECRET": "a secret of this very test",
        }


@pytest.fixture(scope="module")
def omni(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as set_to:
        for name, value in environment.items():
            set_to.setenv(name, value)
        with processes.worker(environment, tmp_path_factory.mktemp("logs") / "worker.log") as worker:
            worker.wait_until_ready()
            with Client() as client:
                yield client


def send(settings: FleetSettings, message: dict[str, object], job_id: str) -> None:
    """Put the message into the queue to the letter, as its release did."""
    place = dict(zip(sorted(BROKER_PRIORITY.values()), queue_lists(settings.queue), strict=True))
    priority = message["properties"]["priority"]  # type: ignore[index]
    with Redis.from_url(settings.redis_url) as redis:
        Submissions(settings).new(job_id).push(redis, place[priority], json.dumps(message))


def outcome(job: JobHandle) -> object:
    try:
        return job.result(WAIT)
    except OmnifleetError as error:
        return error


@pytest.mark.parametrize("release", released_records.releases(), ids=lambda path: path.name)
def test_every_message_of_a_release_is_run_by_today_s_worker(omni: Client, release: Path) -> None:
    messages = json.loads((release / "messages.json").read_text())
    with Redis.from_url(omni._settings.redis_url) as redis:
        redis.flushall()
    for job_id, message in messages.items():
        send(omni._settings, message, job_id)

    outcomes = {job_id: outcome(omni.job(job_id)) for job_id in messages}

    assert len(outcomes) >= sum(map(len, TASK_NAMES.values()))
    for job_id, made in outcomes.items():
        if job_id in WORDS and isinstance(made, OmnifleetError):
            assert type(made) is InvalidJob and made.field in ("desc", "audio", "text"), made
        elif job_id in OF_OTHER_MODELS:
            assert type(made) is InvalidJob and made.field == "model", made
        elif job_id in OF_REMOVED_ADAPTERS:
            assert type(made) is AdapterNotFound, made
        elif job_id.startswith("understand") and job_id not in TEXTS:
            assert type(made) is AnswerUnreadable, made
        else:
            assert not isinstance(made, OmnifleetError), made
            assert made.job_id == job_id  # type: ignore[attr-defined]
