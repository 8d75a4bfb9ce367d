"""Long jobs that go on where an earlier attempt ended, whatever became of the parts in between."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, BinaryIO, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet.testing.storage import MemoryStorage
from omnifleet_shared.errors import EngineStopped, StorageRefused, StorageUnavailable
from omnifleet_shared.keys import PART_KEY
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.model_card import AUDIO_OMNI
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage import ListedObject, StoredObject
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import ChatInputs, DiffusionInputs, Request
from omnifleet_worker.jobs.inputs import JobMedia
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.parts import finished_parts, job_parts
from omnifleet_worker.jobs.parts.finished_parts import FinishedPart, FinishedParts
from omnifleet_worker.jobs.parts.job_parts import JobParts
from omnifleet_worker.jobs.parts.requests_in_turn import AT_ONCE
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.sound_edit.sound_editor import EditedSound
from omnifleet_worker.jobs.tasks import OmniModel, TaskOutput, run_task
from omnifleet_worker.media.decode import DecodedAudio
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.content_cache import ContentCache, digest
from omnifleet_worker.settings import WorkerSettings
from support.services import wait_until

SENTENCES = {
    "system": {"T2M": "Make music.", "TTS": "Speak.", "EDITING": "Edit."},
    "edit": {"Add": "Add {desc}."},
    "transcribe": {"system": "Transcribe.", "user": "What is said?"},
}
FILE = {"uri": "s3://memory/x"}
MODEL = ("a model", "1", "float32")
LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]


def job_of(namespace: str, **fields: Any) -> Job:
    base = {"schema_version": 1, "job_id": "j1", "namespace": namespace, "seed": 7}
    steps: dict[str, Any] = {} if namespace == "understand" else {"steps": 3}
    return read_job(base | steps | fields)


def music(**fields: Any) -> Job:
    return job_of("generate", task={"name": "t2m", "text": "a waltz", "seconds": 45}, **fields)


JOBS = {
    "music": music(),
    "an edit": job_of("edit", task={"name": "add", "audio": FILE, "desc": "rain"}),
    "speech": job_of("generate", task={"name": "tts", "text": "One more word. " * 20}),
    "a transcript": job_of("understand", task={"name": "transcribe", "audio": [FILE], "max_new_tokens": 8}),
}
"""Jobs of several parts."""


def sounds(name: str) -> JobMedia:
    long = {"an edit that is long": (95, 44_100), "a transcript that is long": (1000, 16_000)}
    seconds, rate = {"an edit": (35, 44_100), "a transcript": (125, 16_000), **long}.get(name, (1, 44_100))
    wave = np.random.default_rng(1).standard_normal((1, seconds * rate), dtype=np.float32)
    return JobMedia({"ref" if name == "a reference" else "audio": (DecodedAudio(wave, rate),)}, ())


@pytest.fixture
def model() -> OmniModel:
    card = AUDIO_OMNI.model_copy(update={"max_listen_seconds": 60})
    return OmniModel(card=card, prompts=Prompts(SENTENCES), tokenizer=SpeechTokenizer([" ", ".", *LETTERS]))


class Device:
    """An engine that is done at once, with samples that follow from what it is asked for and which device it is.

    Args:
        number: two devices give other samples for the same inputs.
        dies_after: outcomes, after which the worker shuts down.
    """

    def __init__(self, number: int = 0, dies_after: int | None = None) -> None:
        self.made = 0
        self.asked: list[ChatInputs | DiffusionInputs] = []
        self._number = number
        self._dies_after = dies_after

    def least_seconds(self, kind: str, steps: int) -> float:
        return 0.0

    def submit(self, request: Request) -> Request:
        if self.made == self._dies_after:
            request.outcome.set_exception(EngineStopped("the worker shuts down"))
            return request
        self.made += 1
        self.asked.append(request.inputs)
        request.step = request.steps
        seed = int.from_bytes(digest((self._number, request.inputs))[:8])
        if isinstance(request.inputs, ChatInputs):
            request.outcome.set_result(f"words {seed}")
        else:
            noise = np.random.default_rng(seed).random((2, CLIP_SAMPLES), dtype=np.float32)
            request.outcome.set_result(noise / 2)
        return request


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def opened(storage: MemoryStorage) -> Iterator[Callable[..., FinishedParts]]:
    """Opens the parts of a worker in the storage."""
    all_opened: list[FinishedParts] = []

    def open_parts(where: MemoryStorage = storage, model: tuple[str, ...] = MODEL) -> FinishedParts:
        all_opened.append(FinishedParts(where, model))
        return all_opened[-1]

    yield open_parts
    for one in all_opened:
        one.close()


def attempt(
    job: Job, media: JobMedia, model: OmniModel, device: Device, parts: FinishedParts | None, number: int = 1
) -> tuple[TaskOutput, JobContext]:
    """Run an attempt until its outcome, or raise what ended it; what it kept is written."""
    context = JobContext(job, cast(Engine, device), attempt=number)
    if parts is not None:
        context.parts = JobParts(parts, job.job_id, number)
    try:
        return run_task(context, media, model), context
    finally:
        if context.parts is not None:
            context.parts.flush()


def equal(one: TaskOutput, other: TaskOutput) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, EditedSound) and isinstance(other, EditedSound):
        same = (one.subtype, one.warnings) == (other.subtype, other.warnings)
        return same and np.array_equal(one.samples, other.samples)
    return one == other


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("dies_after", [0, 1, 3])
def test_a_job_goes_on_at_its_last_finished_part(
    name: str, dies_after: int, model: OmniModel, opened: Callable[..., FinishedParts]
) -> None:
    job, media, undisturbed = JOBS[name], sounds(name), Device()
    whole, _ = attempt(job, media, model, undisturbed, None)

    with pytest.raises(EngineStopped):
        attempt(job, media, model, Device(dies_after=dies_after), opened())
    second = Device()
    result, context = attempt(job, media, model, second, opened(), 2)

    assert equal(result, whole)
    assert (second.made, context.resumed_from) == (undisturbed.made - dies_after, dies_after)


class PatientDevice(Device):
    """An engine that is done with a request when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def submit(self, request: Request) -> Request:
        self.requests.append(request)
        return request

    def finish(self, request: Request) -> None:
        super().submit(request)


def test_a_part_is_kept_while_the_others_are_being_made(
    model: OmniModel, storage: MemoryStorage, opened: Callable[..., FinishedParts]
) -> None:
    job, media, device = JOBS["a transcript"], sounds("a transcript that is long"), PatientDevice()
    context = JobContext(job, cast(Engine, device))
    context.parts = JobParts(opened(), job.job_id, 1)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(run_task, context, media, model)
        try:
            wait_until(lambda: len(device.requests) == AT_ONCE["chat"], what="as many as are made at once")
            device.finish(device.requests[1])  # not the first one, as it may be

            wait_until(lambda: len(storage.objects) == 1, what="its part is in storage")
            wait_until(lambda: len(device.requests) == AT_ONCE["chat"] + 1, what="the next one is being made")
            assert not device.requests[0].outcome.done()
        finally:
            for request in device.requests:
                request.fail(EngineStopped("the worker shuts down"))
        with pytest.raises(EngineStopped):
            running.result()


Fate = st.sampled_from(["kept", "lost", "damaged", "cut", "another's", "empty"])


@pytest.mark.parametrize("name", ["music", "an edit", "a transcript"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_became_of_its_parts_the_result_is_the_same(name: str, model: OmniModel, data: st.DataObject) -> None:
    job, media, storage, undisturbed = JOBS[name], sounds(name), MemoryStorage(), Device()
    parts = FinishedParts(storage, MODEL)
    whole, _ = attempt(job, media, model, undisturbed, parts)
    count, keys = undisturbed.made, sorted(storage.objects)
    fates = data.draw(st.lists(Fate, min_size=count, max_size=count))
    position = data.draw(st.integers(0, 2**20))
    assert len(keys) == count > 1

    for key, fate, other in zip(keys, fates, [*keys[1:], keys[0]], strict=True):
        spoil(storage.objects, key, fate, other, position)
    second = Device()
    result, context = attempt(job, media, model, second, parts, 2)
    parts.close()

    assert equal(result, whole)
    assert (second.made, context.resumed_from) == (count - fates.count("kept"), fates.count("kept"))


def spoil(objects: dict[str, bytes], key: str, fate: str, other: str, position: int) -> None:
    whole = objects[key]
    if fate == "lost":
        del objects[key]
    elif fate == "damaged":
        at = position % len(whole)
        objects[key] = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    elif fate == "cut":
        objects[key] = whole[: position % len(whole)]
    elif fate == "another's":
        objects[key] = objects.get(other, b"") or b"something else"
    elif fate == "empty":
        objects[key] = b""


@pytest.mark.parametrize("value", ["", "words", "日本語\n", np.float32([[0.1, -0.0, np.nan]]), np.zeros((2, 0), "f4")])
def test_a_part_comes_back_to_the_bit(value: str | np.ndarray) -> None:
    again = FinishedPart.decode(FinishedPart(value, 12).encode("ab"), "ab")

    assert again is not None
    assert (type(again.value), again.step) == (type(value), 12)
    same = value == again.value if isinstance(value, str) else value.tobytes() == cast(Any, again.value).tobytes()
    assert same


def test_windows_that_go_on_from_another_window_are_not_mixed(
    model: OmniModel, storage: MemoryStorage, opened: Callable[..., FinishedParts]
) -> None:
    """Another device makes the lost window otherwise, so those that went on from the lost one are of no use."""
    job, media, first, parts = music(), sounds("music"), Device(), opened()
    attempt(job, media, model, first, parts)
    del storage.objects[PART_KEY.format(job_id="j1", fingerprint=parts.fingerprint(first.asked[2]))]
    before = dict(storage.objects)

    other = Device(number=1)
    result, context = attempt(job, media, model, other, opened(), 2)
    third = Device(number=2)
    again, _ = attempt(job, media, model, third, opened(), 3)

    assert (context.resumed_from, other.made) == (2, 3)
    assert all(storage.objects[key] == data for key, data in before.items())
    assert third.made == 0
    assert equal(again, result)


@pytest.mark.parametrize(
    ("changes", "revision"),
    [({"seed": 8}, MODEL), ({"steps": 4}, MODEL), ({"guidance": 1.0}, MODEL), ({}, ("a model", "2", "float32"))],
)
def test_parts_of_other_parameters_or_of_another_model_are_not_taken(
    model: OmniModel, opened: Callable[..., FinishedParts], changes: dict[str, Any], revision: tuple[str, ...]
) -> None:
    attempt(music(), sounds("music"), model, Device(), opened())

    second = Device()
    _, context = attempt(music(**changes), sounds("music"), model, second, opened(model=revision), 2)

    assert (context.resumed_from, second.made) == (0, 5)


def test_a_job_of_one_part_keeps_nothing(
    model: OmniModel, storage: MemoryStorage, opened: Callable[..., FinishedParts]
) -> None:
    parts, media = opened(), sounds("a reference")
    short = {"name": "t2m", "text": "a waltz", "seconds": 9}
    spoken = {"name": "tts", "text": "One word.", "ref": FILE}

    for task in (short, spoken):
        attempt(job_of("generate", task=task), media, model, Device(), parts)

    assert storage.objects == {}


def test_the_words_of_a_reference_are_kept_with_the_clips_that_are_spoken_with_them(
    model: OmniModel, storage: MemoryStorage, opened: Callable[..., FinishedParts]
) -> None:
    job = job_of("generate", task={"name": "tts", "text": "One more word. " * 20, "ref": FILE})
    first, second = Device(), Device(number=1)

    whole, _ = attempt(job, sounds("a reference"), model, first, opened())
    elsewhere = replace(model, transcripts=ContentCache(1000, len))
    again, context = attempt(job, sounds("a reference"), elsewhere, second, opened(), 2)

    assert equal(again, whole)
    assert (context.resumed_from, second.made) == (first.made, 0)


def test_progress_starts_where_the_job_goes_on(model: OmniModel, opened: Callable[..., FinishedParts]) -> None:
    with pytest.raises(EngineStopped):
        attempt(music(), sounds("music"), model, Device(dies_after=2), opened())
    parts = opened()
    context = JobContext(music(), cast(Engine, Device(dies_after=0)), attempt=2)
    context.parts = JobParts(parts, "j1", 2)

    with pytest.raises(EngineStopped):
        run_task(context, sounds("music"), model)

    assert (context.progress().step, context.progress().steps) == (6, 15)


class BrokenStorage(MemoryStorage):
    """Fails, or hangs until it is let go, at one operation."""

    def __init__(self, objects: dict[str, bytes], operation: str, failure: Exception | threading.Event) -> None:
        super().__init__()
        self.objects = dict(objects)
        self._operation = operation
        self._failure = failure

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        self._fail_at("put")
        return super().put(key, source, content_type=content_type)

    def get(self, uri: str, *, max_bytes: int) -> bytes:
        self._fail_at("get")
        return super().get(uri, max_bytes=max_bytes)

    def list(self, prefix: str) -> Iterator[ListedObject]:
        self._fail_at("list")
        return super().list(prefix)

    def delete(self, uri: str) -> None:
        self._fail_at("delete")
        super().delete(uri)

    def _fail_at(self, operation: str) -> None:
        if operation != self._operation:
            return
        if isinstance(self._failure, Exception):
            raise self._failure
        self._failure.wait(30)


@pytest.mark.parametrize("operation", ["put", "get", "list", "delete"])
@pytest.mark.parametrize("how", ["away", "refuses", "hangs"])
def test_a_storage_that_fails_fails_no_job_and_holds_none_up(
    model: OmniModel,
    storage: MemoryStorage,
    opened: Callable[..., FinishedParts],
    operation: str,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("LOOK_SECONDS", "END_SECONDS"):
        monkeypatch.setattr(finished_parts, name, 0.05)
    for name in ("END_SECONDS", "WRITE_SECONDS"):
        monkeypatch.setattr(job_parts, name, 0.05)
    whole, _ = attempt(music(), sounds("music"), model, Device(), opened())
    released = threading.Event()
    failure = {"away": StorageUnavailable("away"), "refuses": StorageRefused("no"), "hangs": released}[how]
    broken = BrokenStorage(storage.objects, operation, failure)

    try:
        result, context = attempt(music(), sounds("music"), model, Device(), opened(broken), 2)
        assert context.parts is not None
        context.parts.delete()
    finally:
        released.set()

    assert equal(result, whole)


def test_parts_that_storage_is_too_slow_for_are_not_kept(
    model: OmniModel,
    storage: MemoryStorage,
    opened: Callable[..., FinishedParts],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(finished_parts, "MAX_WAITING", 2)
    monkeypatch.setattr(job_parts, "END_SECONDS", 0.05)
    released = threading.Event()
    slow = BrokenStorage({}, "put", released)
    parts = opened(slow)

    attempt(music(), sounds("music"), model, Device(), parts)
    released.set()
    parts.close()

    assert len(slow.objects) == 2
    assert caplog.text.count("storage is too slow") == 3


def test_with_its_outcome_all_parts_of_a_job_go_and_no_other_job_s(
    model: OmniModel, storage: MemoryStorage, opened: Callable[..., FinishedParts]
) -> None:
    parts = opened()
    attempt(music(job_id="j11"), sounds("music"), model, Device(), parts)
    others = set(storage.objects)
    attempt(music(), sounds("music"), model, Device(), parts)
    _, context = attempt(music(seed=9), sounds("music"), model, Device(), parts, 2)
    assert context.parts is not None

    context.parts.delete()
    parts.close()

    assert set(storage.objects) == others


def test_what_is_being_written_as_the_outcome_comes_goes_too(
    model: OmniModel, opened: Callable[..., FinishedParts], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_parts, "END_SECONDS", 0.05)
    released = threading.Event()
    slow = BrokenStorage({}, "put", released)
    parts = opened(slow)
    _, context = attempt(music(), sounds("music"), model, Device(), parts)
    assert context.parts is not None

    context.parts.delete()
    released.set()
    monkeypatch.setattr(finished_parts, "END_SECONDS", 30)
    parts.close()

    assert slow.objects == {}


class TestRunner:
    """From the job to its stored result."""

    def run(self, runner: JobRunner, device: Device, number: int = 1) -> tuple[JobResult, JobContext]:
        context = JobContext(music(), cast(Engine, device), attempt=number)
        return runner.run(context), context

    def test_an_attempt_that_ends_without_an_outcome_leaves_all_that_it_finished(
        self, model: OmniModel, storage: MemoryStorage, opened: Callable[..., FinishedParts]
    ) -> None:
        runner = JobRunner(model, storage, WorkerSettings(), opened())

        with pytest.raises(EngineStopped):
            self.run(runner, Device(dies_after=3))

        assert len(storage.objects) == 3

    def test_the_outcome_of_an_attempt_that_never_ran_takes_the_parts_of_earlier_ones_along(
        self, model: OmniModel, storage: MemoryStorage, opened: Callable[..., FinishedParts]
    ) -> None:
        parts = opened()
        runner = JobRunner(model, storage, WorkerSettings(), parts)
        with pytest.raises(EngineStopped):
            self.run(runner, Device(dies_after=3))

        runner.delete_parts(None, "j1")
        parts.close()

        assert storage.objects == {}

    def test_a_finished_result_waits_for_its_storage_and_is_not_made_again(
        self, model: OmniModel, opened: Callable[..., FinishedParts], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        flaky = FlakyStorage(failures=2)
        device = Device()
        runner = JobRunner(model, flaky, WorkerSettings(storage_patience=0), opened())

        result, _ = self.run(runner, device)

        assert result.artifact is not None
        assert (device.made, flaky.failures) == (5, 0)
        assert flaky.stat(result.artifact.uri) is not None


class FlakyStorage(MemoryStorage):
    """Is away for so many tries to put something."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("away")
        return super().put(key, source, content_type=content_type)


def test_a_part_is_found_by_the_content_of_the_arrays_that_it_was_made_of(storage: MemoryStorage) -> None:
    one, other = (FinishedPart(np.full((2, 4), value, np.float32), 3) for value in (0.5, 0.25))

    assert FinishedPart.decode(one.encode("a"), "b") is None
    assert one.encode("a") != other.encode("a")
    assert storage.put("x", io.BytesIO(one.encode("a")), content_type="").bytes > 32
