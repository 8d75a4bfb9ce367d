"""Workers that die at any step of long jobs: what is computed twice is no more than one window's work."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omnifleet.testing.storage import MemoryStorage
from omnifleet_shared.errors import DeviceFailed
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_shared.schema.model_card import AUDIO_OMNI
from omnifleet_shared.storage import StoredObject
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.request import ChatInputs, Request
from omnifleet_worker.jobs.inputs import JobMedia
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.parts import job_parts, requests_in_turn
from omnifleet_worker.jobs.parts.finished_parts import FinishedParts
from omnifleet_worker.jobs.parts.job_parts import JobParts
from omnifleet_worker.jobs.parts.requests_in_turn import AT_ONCE, LEAST_AHEAD, RequestsInTurn
from omnifleet_worker.jobs.prompts import Prompts
from omnifleet_worker.jobs.sound_edit.sound_editor import EditedSound
from omnifleet_worker.jobs.tasks import OmniModel, TaskOutput, run_task
from omnifleet_worker.media.decode import DecodedAudio
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.sampling import CLIP_SAMPLES
from omnifleet_worker.models.audio_omni.speech_tokenizer import SpeechTokenizer
from omnifleet_worker.models.content_cache import digest
from support.services import wait_until

STEPS, TOKENS = 6, 96
FILE = {"uri": "s3://memory/x"}
MODEL = OmniModel(
    card=AUDIO_OMNI.model_copy(update={"max_listen_seconds": 60}),
    prompts=Prompts(
        {
            "system": {"T2M": "Make music.", "TTS": "Speak.", "EDITING": "Edit."},
            "edit": {"Add": "Add {desc}."},
            "transcribe": {"system": "Transcribe.", "user": "What is said?"},
        }
    ),
    tokenizer=SpeechTokenizer([" ", ".", *map(chr, range(ord("a"), ord("z") + 1))]),
)


def job_of(namespace: str, task: dict[str, Any], **fields: Any) -> Job:
    steps = {} if namespace == "understand" else {"steps": STEPS}
    return read_job({"schema_version": 1, "namespace": namespace, "task": task, "seed": 7, **steps, **fields})


JOBS = {
    "music": (job_of("generate", {"name": "t2m", "text": "a waltz", "seconds": 45}), 1),
    "an edit": (job_of("edit", {"name": "add", "audio": FILE, "desc": "rain"}), 45),
    "speech": (job_of("generate", {"name": "tts", "text": "One more word. " * 20}), 1),
    "a transcript": (
        job_of("understand", {"name": "transcribe", "audio": [FILE], "max_new_tokens": TOKENS}, temperature=0.5),
        620,
    ),
}
"""Jobs of several parts, with the seconds of what they hear."""
BOUNDS = {"a transcript": max(TOKENS, AT_ONCE["chat"] * LEAST_AHEAD)}
"""Tokens that may be computed twice; of the others, the steps of one window."""


def sounds(name: str) -> JobMedia:
    wave = np.random.default_rng(1).standard_normal((1, JOBS[name][1] * 16_000), dtype=np.float32)
    return JobMedia({"audio": (DecodedAudio(wave, 16_000),)}, ())


class SlowStorage(MemoryStorage):
    """Takes its time to write."""

    def __init__(self, objects: dict[str, bytes], seconds: float) -> None:
        super().__init__()
        self.objects = dict(objects)
        self._seconds = seconds

    def put(self, key: str, source: BinaryIO, *, content_type: str, filename: str | None = None) -> StoredObject:
        time.sleep(self._seconds)
        return super().put(key, source, content_type=content_type, filename=filename)


class CountingRunner:
    """A model whose every step follows from the inputs. Before a step, its device dies, with what storage has then.

    Args:
        storage: of the parts.
        dies_at: number of the step, from 0; None to live.
    """

    def __init__(self, storage: MemoryStorage, dies_at: int | None = None) -> None:
        self.taken: Counter[tuple[bytes, int]] = Counter()
        self.left: dict[str, bytes] = {}
        self.most_at_once: Counter[str] = Counter()
        self._storage = storage
        self._dies_at = dies_at
        self._steps = 0
        self._tokens: dict[Request, list[int]] = {}
        self._hashes: dict[Request, bytes] = {}

    def prepare(self, request: Request) -> None:
        self._hashes[request] = digest(request.inputs)
        if isinstance(request.inputs, ChatInputs):
            # One more is always written (`Thinker.start`): all may be kept of an answer that is not finished yet.
            tokens = self._tokens[request] = list(request.begun)[: request.steps - 1]
            request.step = len(tokens)
            request.written = lambda: tuple(tokens)

    def advance(self, batch: Sequence[Request]) -> None:
        if self._steps == self._dies_at:
            self.left = dict(self._storage.objects)
            raise DeviceFailed("it fell off the bus")
        self._steps += 1
        time.sleep(0.001)
        self.most_at_once[batch[0].kind] = max(self.most_at_once[batch[0].kind], len(batch))
        for request in batch:
            if request in self._tokens:
                before = self._tokens[request]
                before.append(int.from_bytes(digest((self._hashes[request], tuple(before)))[:4]))
            request.step += 1
            self.taken[self._hashes[request], request.step] += 1

    def is_done(self, request: Request) -> bool:
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        return [self._outcome(request) for request in batch]

    def release(self, request: Request) -> None:
        self._tokens.pop(request, None)

    def _outcome(self, request: Request) -> Any:
        if request in self._tokens:
            return " ".join(map(str, self._tokens[request]))
        noise = np.random.default_rng(int.from_bytes(self._hashes[request][:8]))
        return noise.random((2, CLIP_SAMPLES), dtype=np.float32) / 2


@contextmanager
def engine_of(runner: CountingRunner) -> Iterator[Engine]:
    engine = Engine(runner, EngineLimits(clips=8, chats=16))
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def attempt(name: str, runner: CountingRunner, storage: MemoryStorage, number: int = 1) -> TaskOutput:
    parts = FinishedParts(storage, ("a model", "1"))
    job, _ = JOBS[name]
    with engine_of(runner) as engine:
        context = JobContext(job, engine, attempt=number)
        context.parts = JobParts(parts, job.job_id, number)
        try:
            return run_task(context, MEDIA[name], MODEL)
        finally:
            parts.close()


MEDIA = {name: sounds(name) for name in JOBS}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests_in_turn, "POLL", 0.002)
    monkeypatch.setattr(job_parts, "WRITE_SECONDS", 30.0)  # a busy machine is no storage that is away


@pytest.fixture(scope="module")
def whole() -> Callable[[str], tuple[TaskOutput, Counter[tuple[bytes, int]]]]:
    """What becomes of a job whose worker lives, and the steps that it takes."""
    known: dict[str, tuple[TaskOutput, Counter[tuple[bytes, int]]]] = {}

    def run(name: str) -> tuple[TaskOutput, Counter[tuple[bytes, int]]]:
        if name not in known:
            runner = CountingRunner(storage := MemoryStorage())
            known[name] = attempt(name, runner, storage), runner.taken
        return known[name]

    return run


def equal(one: TaskOutput, other: TaskOutput) -> bool:
    if isinstance(one, EditedSound) and isinstance(other, EditedSound):
        return np.array_equal(one.samples, other.samples)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    return one == other


@pytest.mark.parametrize("name", JOBS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wherever_a_worker_dies_one_window_at_most_is_computed_twice(
    name: str, whole: Callable[[str], tuple[TaskOutput, Counter[tuple[bytes, int]]]], data: st.DataObject
) -> None:
    result, steps = whole(name)
    at_once = AT_ONCE["chat" if name == "a transcript" else "diffusion"]
    dies_at = data.draw(st.integers(0, (steps.total() - 1) // at_once))
    storage = SlowStorage({}, data.draw(st.sampled_from([0.0, 0.003, 0.02])))
    first = CountingRunner(storage, dies_at)

    with pytest.raises(DeviceFailed):
        attempt(name, first, storage)
    second = CountingRunner(left := SlowStorage(first.left, 0.0))
    again = attempt(name, second, left, 2)

    taken = first.taken + second.taken
    assert equal(again, result)
    assert set(taken) == set(steps)
    assert taken.total() - steps.total() <= BOUNDS.get(name, STEPS)


def test_answers_of_a_transcript_share_the_steps_all_the_same() -> None:
    runner = CountingRunner(storage := MemoryStorage())

    attempt("a transcript", runner, storage)

    assert runner.most_at_once["chat"] == AT_ONCE["chat"]


@pytest.mark.parametrize("name", ["an edit", "a transcript"])
def test_a_storage_that_hangs_holds_the_job_up_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_parts, "WRITE_SECONDS", 0.05)
    released = threading.Event()

    class HangingStorage(MemoryStorage):
        def put(self, *args: Any, **kwargs: Any) -> StoredObject:
            released.wait(60)
            return super().put(*args, **kwargs)

    runner, outcome = CountingRunner(storage := HangingStorage()), []
    working = threading.Thread(target=lambda: outcome.append(attempt(name, runner, storage)))
    working.start()
    try:
        wait_until(lambda: runner.taken.total() >= {"an edit": 5 * STEPS}.get(name, 21 * TOKENS), what="its last step")
    finally:
        released.set()
        working.join()

    assert len(outcome) == 1


class Untold:
    """An engine whose model tells no tokens: its answer is there when the test says so."""

    def __init__(self) -> None:
        self.allowed: list[int | None] = []
        self.requests: list[Request] = []

    def submit(self, request: Request) -> Request:
        self.allowed.append(request.may_reach)
        request.wake = lambda: self.allowed.append(request.may_reach)
        request.step = 1
        self.requests.append(request)
        return request


def test_an_answer_whose_tokens_nobody_can_read_is_let_go_on_for_good() -> None:
    parts, engine = JobParts(FinishedParts(MemoryStorage(), ("a model",)), "j1", 1), Untold()
    parts.expect_more()
    looks: list[bool] = []
    parts.settle = lambda: looks.append(True)  # type: ignore[method-assign]
    inputs = ChatInputs(chat=Chat("Be kind.", "Hello"), max_new_tokens=TOKENS, temperature=0, seed=0)
    turn = RequestsInTurn([Request(inputs=inputs)], engine.submit, parts)

    watched: list[Sequence[Request]] = []
    working = threading.Thread(target=turn.run, args=(watched.append, None))
    working.start()
    try:
        wait_until(lambda: len(looks) > 5, what="several looks at what was written")
    finally:
        engine.requests[0].succeed("an answer")
        working.join()

    assert engine.allowed == [TOKENS, None]
