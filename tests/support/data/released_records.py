"""Everything that this release writes to Redis, kept as fixtures: `python -m support.data.released_records FOLDER`.

Later releases must read it, and their workers must run the messages. What is kept of a release is never written again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omnifleet.testing.answers import SAMPLES, make_plan
from omnifleet.transport.celery import CeleryTransport
from omnifleet_shared.broker.dead_letters import DeadLetter
from omnifleet_shared.broker.submit import all_lists
from omnifleet_shared.errors import error_classes
from omnifleet_shared.keys import JOB_SCHEMA_VERSION
from omnifleet_shared.schema.adapter import UsedAdapter
from omnifleet_shared.schema.callback import CallbackOutcome
from omnifleet_shared.schema.job_state import (
    failure_record,
    queued_record,
    retry_record,
    started_record,
    success_record,
)
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.parts import StreamedPart
from omnifleet_shared.schema.results import (
    Artifact,
    EditedSpan,
    JobResult,
    ModelInfo,
    Progress,
    Route,
    Timings,
    VideoArtifact,
)
from omnifleet_shared.schema.transcript import HeardSegment, HeardWord, Transcript
from omnifleet_shared.settings import FleetSettings
from pydantic import TypeAdapter

from support import TESTS, services

BUCKET = "omnifleet-released"
"""Home of the media that the messages name; a test that runs them puts the files there."""
STORAGE = f"s3://{BUCKET}/media"
SOUND = {"uri": f"{STORAGE}/sound.wav"}
FILM = {"uri": f"{STORAGE}/film.mp4"}
BRIEF = {"audio": [SOUND], "max_new_tokens": 4}
HISTORY = [{"role": "user", "text": "What is heard?"}, {"role": "assistant", "text": "Rain."}]

TASKS: dict[str, dict[str, Any]] = {
    "understand.question": {"text": "Who speaks?", "history": HISTORY, "system": "Be brief.", **BRIEF},
    "understand.transcribe": BRIEF,
    "understand.caption": {"video": [FILM], "max_new_tokens": 4},
    "understand.qa": BRIEF | {"text": "Who speaks?"},
    **{
        f"understand.{name}": BRIEF
        for name in ("classify", "sources", "scene", "speakers", "gender", "sarcasm", "feedback")
    },
    "generate.t2a": {"text": "rain on a tin roof", "seconds": 1.5},
    "generate.t2m": {"text": "a slow waltz", "seconds": 1.5},
    "generate.v2a": {"video": FILM, "text": "waves"},
    "generate.v2m": {"video": FILM, "text": "piano", "seconds": 1, "mux": True},
    "generate.tts": {"text": "Hello world", "ref": SOUND, "ref_text": "Good morning"},
    "generate.vc": {"text": "Hello", "ref": SOUND, "ref_text": "Good day"},
    "edit.add": {"audio": SOUND, "desc": "rain"},
    "edit.remove": {"audio": SOUND, "desc": "a dog that barks"},
    "edit.extract": {"audio": SOUND, "desc": "speech"},
    "edit.style": {"audio": SOUND, "source": "piano", "target": "harp"},
    "edit.speech": {"audio": SOUND, "desc": "replace 'hello' with 'goodbye'"},
}
TIMES = Transcript(
    seconds=1.5,
    words=(HeardWord(text="Hello", start=0.1, end=0.4), HeardWord(text="world", start=0.5, end=0.9)),
    segments=(HeardSegment(text="Hello world", start=0.1, end=0.9),),
)
ROUTE = Route(
    model="voxcpm2",
    queue="audio-omni.voxcpm2",
    reason="asked for by name",
    revision="r1",
    licence="Apache-2.0",
    live=True,
)
ADAPTER: dict[str, Any] = {"name": "rain-lora", "sha256": "1" * 64, "scale": 0.8}
LATER = datetime(2096, 1, 2, 3, 4, 5, tzinfo=UTC)
FILE = {"url": "https://storage.invalid/x", "sha256": "0" * 64, "bytes": 1000, "seconds": 1.5}


def releases() -> list[Path]:
    """The folder of every schema version that was given out, the newest one last."""
    return sorted((TESTS / "released").iterdir(), key=lambda folder: int(folder.name[1:]))


def jobs(version: int = 1) -> Iterator[Job]:
    """One job of every task, under the task's own name; every other one uses all the options of the version."""
    for number, (task, fields) in enumerate(TASKS.items()):
        namespace, _, name = task.partition(".")
        options: dict[str, Any] = {} if namespace == "understand" else {"steps": 1}
        if number % 2:
            options |= {"deadline": LATER, "priority": "batch", "language": "en", "seed": 7}
            options |= {"temperature": 0.5} if namespace == "understand" else {"guidance": 3, "format": "flac"}
        if number % 2 and version > 1:
            options |= {"callback": "https://hooks.example.com/omnifleet"}
            options |= {} if namespace == "understand" else {"quality": "fast"}
        if number % 4 == 3 and version > 2 and "audio" in fields:
            options |= {"audio_track": 0}
        needed = 3 if "audio_track" in options else 1 + ("callback" in options)
        head = {"schema_version": needed, "job_id": task.replace(".", "-"), "namespace": namespace}
        yield read_job(head | {"task": {"name": name, **fields}} | options)
    if version > 3:
        head = {"schema_version": 4, "job_id": "edit-speech-dry", "namespace": "edit"}
        yield read_job(head | {"task": {"name": "speech", "dry_run": True, **TASKS["edit.speech"]}})
    if version > 4:
        head = {"schema_version": 5, "job_id": "understand-transcribe-timed", "namespace": "understand"}
        yield read_job(head | {"task": {"name": "transcribe", "timestamps": "segment", **BRIEF}})
        head = {"schema_version": 5, "job_id": "edit-speech-span", "namespace": "edit", "steps": 1}
        yield read_job(head | {"task": {"name": "speech", "audio": SOUND, "span": (0.5, 1.0), "text": "goodbye"}})
    if version > 5:
        for task in ("understand.caption", "generate.tts"):
            namespace, _, name = task.partition(".")
            head = {"schema_version": 6, "job_id": f"{namespace}-streamed", "namespace": namespace, "stream": True}
            yield read_job(head | {"task": {"name": name, **TASKS[task]}} | ({} if name == "caption" else {"steps": 1}))
        head = {"schema_version": 7, "job_id": "edit-add-mono", "namespace": "edit", "steps": 1}
        yield read_job(head | {"task": {"name": "add", "loudness": "peak", "channels": 1, **TASKS["edit.add"]}})
    if version > 7:
        head = {"schema_version": 8, "job_id": "generate-tts-routed", "namespace": "generate", "model": "voxcpm2"}
        yield read_job(head | {"task": {"name": "tts", "text": "Привет"}, "language": "ru", "commercial": True})
    if version > 8:
        head = {"schema_version": 9, "job_id": "generate-t2a-adapted", "namespace": "generate", "steps": 1}
        yield read_job(head | {"task": {"name": "t2a", **TASKS["generate.t2a"]}, "adapter": ADAPTER})
        for pace in ({"speed": 1.5}, {"seconds": 2.5}):
            (name,) = pace
            head = {"schema_version": 9, "job_id": f"generate-tts-{name}", "namespace": "generate"}
            yield read_job(head | {"model": "omnivoice", "task": {"name": "tts", "text": "Hello world", **pace}})


def messages() -> dict[str, Any]:
    """The messages of those jobs, as they lie in the queue."""
    with tempfile.TemporaryDirectory() as folder:
        server = services.RedisServer(services.free_port(), Path(folder))
        with server.running(), server.client() as redis:
            transport = CeleryTransport(FleetSettings(redis_url=server.url))
            for job in jobs(JOB_SCHEMA_VERSION):
                transport.submit(job)
            transport.close()
            sent = [json.loads(one) for place in all_lists("audio-omni") for one in redis.lrange(place, 0, -1)]
    return {message["headers"]["id"]: message for message in sent}


def results() -> dict[str, JobResult]:
    """One result of every form."""
    audio = Artifact(uri=f"{STORAGE}/results/1.wav", format="wav", sample_rate=44_100, channels=2, **FILE)
    video = VideoArtifact(uri=f"{STORAGE}/results/1.mp4", format="mp4", **FILE)
    span = EditedSpan(start=0.1, end=0.4, source_start=0.1, source_end=0.5, old="hello", new="goodbye")
    said = {name: _result("understand", name, text="{}", answer=answer) for name, answer in SAMPLES.items()}
    return said | {
        "text": _result("understand", "transcribe", text="hello"),
        "audio": _result("generate", "t2a", artifact=audio),
        "video": _result("generate", "v2m", artifact=audio, video=video),
        "without video": _result("generate", "v2m", artifact=audio, warnings=("video: no film. Send mp4.",)),
        "words": _result("edit", "speech", artifact=audio, edits=(span,)),
        "plan": _result("edit", "speech", **make_plan(None)),
        "times": _result("understand", "transcribe", text="Hello world", transcript=TIMES),
        "routed": _result("generate", "tts", artifact=audio, route=ROUTE),
        "adapted": _result("generate", "t2a", artifact=audio, adapter=UsedAdapter(**ADAPTER, licence="CC BY-NC 4.0")),
    }


def states() -> dict[str, Any]:
    """A state record of every kind: each result, and each error as a failure."""
    errors = {name: cls("what was wrong", "audio", "What to do", {"limit": 7}) for name, cls in error_classes().items()}
    written = {
        "queued": queued_record("job-1"),
        "started": started_record("job-1"),
        "retrying": retry_record("job-1", errors["StorageUnavailable"]),
        **{f"succeeded {name}": success_record(result) for name, result in results().items()},
        **{f"failed {name}": failure_record("job-1", error) for name, error in errors.items()},
    }
    return {name: json.loads(record) for name, record in written.items()}


def others() -> dict[str, Any]:
    """What else is read back by a later release."""
    letter = DeadLetter(
        job=list(jobs(JOB_SCHEMA_VERSION))[1], reason="3 workers were lost", worker="w:1", attempts=3, traceback="told"
    )
    audio = Artifact(uri=f"{STORAGE}/results/1.1.wav", format="wav", sample_rate=44_100, channels=2, **FILE)
    records = {
        "dead letter": letter,
        "progress": Progress(step=37, steps=100, eta=4.1),
        "part of audio": StreamedPart(number=1, audio=audio),
        "part of text": StreamedPart(number=2, text=" world"),
    }
    return {name: record.model_dump(mode="json") for name, record in records.items()}


def schemas() -> dict[str, Any]:
    """The form of all records, as JSON Schemas."""
    forms: dict[str, Any] = {
        "callback": CallbackOutcome,
        "job": Job,
        "result": JobResult,
        "dead letter": DeadLetter,
        "progress": Progress,
        "part": StreamedPart,
    }
    return {name: TypeAdapter(form).json_schema() for name, form in forms.items()}


def write(folder: Path) -> None:
    """Write a release's fixtures into a folder that does not exist yet."""
    folder.mkdir(parents=True)
    made = {"messages": messages(), "states": states(), "others": others(), "schemas": schemas()}
    for name, records in made.items():
        (folder / f"{name}.json").write_text(json.dumps(records, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _result(namespace: Any, task: str, **made: Any) -> JobResult:
    model = ModelInfo(name="audio-omni", revision="published", licence="CC BY-NC 4.0")
    timings = Timings(queued=0.1, sampled=1.5)
    return JobResult(
        job_id="job-1", namespace=namespace, task=task, model=model, seed=7, attempts=2, timings=timings, **made
    )


if __name__ == "__main__":
    write(Path(sys.argv[1]))
