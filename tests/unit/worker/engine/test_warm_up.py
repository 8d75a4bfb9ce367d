"""What is done before the first job, on the tiny checkpoint, so that no job is the first one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from omnifleet_worker.engine.costs import CONTEXT_COPIES, RequestCosts
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import DiffusionInputs, Request
from omnifleet_worker.engine.warm_up import compile_blocks, end_compilation, measure_costs, warm_up
from omnifleet_worker.model_loader import open_model
from omnifleet_worker.models.audio_omni.adapters.low_rank import AppliedAdapter
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from omnifleet_worker.settings import WorkerSettings
from support.data.adapters import random_adapters

LIMITS = EngineLimits(clips=4, chats=3, decoded=2)


@pytest.fixture(scope="module")
def pipeline() -> AudioOmniPipeline:
    return tiny_pipeline()


@pytest.fixture
def dynamo() -> Iterator[None]:
    yield
    torch.compiler.set_stance("default")
    torch._dynamo.reset()


class Watched(AudioOmniRunner):
    """Writes down what it is asked for."""

    def __init__(self, pipeline: AudioOmniPipeline) -> None:
        super().__init__(pipeline)
        self.steps: list[tuple[str, int]] = []
        self.decoded: list[int] = []
        self.prepared = self.released = 0

    def prepare(self, request: Request) -> None:
        self.prepared += 1
        super().prepare(request)

    def advance(self, batch: list[Request]) -> None:  # type: ignore[override]
        self.steps.append((batch[0].kind, len(batch)))
        super().advance(batch)

    def finish(self, batch: list[Request]) -> list[object]:  # type: ignore[override]
        self.decoded.append(len(batch))
        return super().finish(batch)

    def release(self, request: Request) -> None:
        self.released += 1
        super().release(request)


def sample(engine: Engine, *clips: tuple[int, float], adapters: Sequence[AppliedAdapter] = ()) -> list[np.ndarray]:
    """The first clips have the adapters, one each."""
    requests = [
        engine.submit(Request(inputs=inputs))
        for seed, (length, scale) in enumerate(clips)
        for adapter in [adapters[seed] if seed < len(adapters) else None]
        for about in [{"steps": 2, "guidance": scale, "seed": seed, "adapter": adapter}]
        for inputs in [DiffusionInputs(prompt=Chat("", "a" * length), **about)]  # type: ignore[arg-type]
    ]
    while engine.step():
        pass
    return [request.outcome.result() for request in requests]


def test_every_batch_size_is_run_and_nothing_is_kept(pipeline: AudioOmniPipeline) -> None:
    runner = Watched(pipeline)

    warm_up(runner, LIMITS)

    assert {size for kind, size in runner.steps if kind == "diffusion"} == {1, 2, 4}
    assert {size for kind, size in runner.steps if kind == "chat"} == {1, 2, 3}
    assert {1, 2} <= set(runner.decoded)
    assert runner.prepared == runner.released > 0
    assert runner._clips == {} and runner._chats == {}


@pytest.mark.filterwarnings("default")  # what the compiler uses of its own that is deprecated
def test_after_warm_up_no_batch_waits_for_the_compiler_and_none_sounds_different(
    pipeline: AudioOmniPipeline, dynamo: None
) -> None:
    if shutil.which("g++") is None and "CI" not in os.environ:
        pytest.skip("torch's compiler needs g++: apt-get install g++")
    clips = [(3, 7.0), (40, 1.0), (8, 3.0), (200, 0.0)]
    crowds = [clips[:1], clips[1:2], clips[:2], clips[:3], clips, clips[2:]]
    some = random_adapters(pipeline.transformer, (1, 4, 24))
    used_by = [(clips[:1], 1), (clips[1:2], 1), (clips[:2], 2), (clips[:3], 3)]
    adapted = [*((crowd, some[:0]) for crowd in crowds), *((crowd, some[:count]) for crowd, count in used_by)]
    plain = [sample(Engine(AudioOmniRunner(pipeline), LIMITS), *crowd, adapters=used) for crowd, used in adapted]
    compiled = tiny_pipeline()
    compile_blocks(compiled)
    runner = AudioOmniRunner(compiled)
    warm_up(runner, LIMITS, adapted=True)

    with torch.compiler.set_stance("fail_on_recompile"):
        fast = [sample(Engine(runner, LIMITS), *crowd, adapters=used) for crowd, used in adapted]

    for one, other in zip(plain, fast, strict=True):
        for expected, heard in zip(one, other, strict=True):
            assert np.abs(expected - heard).max() < 1e-4


def test_what_was_never_compiled_is_run_as_it_is(dynamo: None) -> None:
    compiled = tiny_pipeline()
    compile_blocks(compiled, backend=pytest.fail)
    end_compilation()

    assert len(sample(Engine(AudioOmniRunner(compiled), LIMITS), (3, 7.0))) == 1


def test_a_clip_s_activations_are_what_a_second_one_adds_to_the_peak(pipeline: AudioOmniPipeline) -> None:
    runner, peaks = AudioOmniRunner(pipeline), iter([5 * 10**9, 8 * 10**9])

    def peak(work: Callable[[], None]) -> int:
        work()
        return next(peaks)

    costs = measure_costs(runner, RequestCosts(clip_activations=1), peak)

    width, depth, tokens = 128, 2, 2048 + 256
    held = CONTEXT_COPIES * 4 * (2 * depth * width * tokens + width * 364 + 64 * 236)
    assert costs == RequestCosts(clip_activations=3 * 10**9 - held)


def test_without_a_gpu_costs_stay_as_planned(pipeline: AudioOmniPipeline) -> None:
    planned = RequestCosts(clip_activations=1)

    assert measure_costs(AudioOmniRunner(pipeline), planned) == planned


@pytest.mark.parametrize(
    ("choice", "cache", "warmed"), [("auto", 1, False), ("on", 1, True), ("on", 0, True), ("off", 1, False)]
)
def test_settings_say_whether_to_warm_up(
    monkeypatch: pytest.MonkeyPatch, checkpoint: Path, choice: str, cache: int, warmed: bool
) -> None:
    calls: list[tuple[EngineLimits, bool]] = []
    monkeypatch.setattr(
        "omnifleet_worker.engine.warm_up.warm_up", lambda runner, limits, adapted: calls.append((limits, adapted))
    )
    sizes: dict[str, int] = {"max_batch": 3, "max_chats": 5, "adapter_cache": cache}
    settings = WorkerSettings(checkpoint=checkpoint, device="cpu", warm_up=choice, **sizes)

    runner, limits = open_model(settings)

    assert (limits.clips, limits.chats) == (3, 5)
    assert calls == ([(limits, cache > 0)] if warmed else [])
    assert runner.encodings._cached.maxsize == settings.encoding_cache
