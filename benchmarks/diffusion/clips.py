"""Clips a second of the published loop, and of the engine at several batch sizes."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

import torch
from models import float32_twin, step_flops, synchronise
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.limits import EngineLimits
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.observer import NoObserver, Work
from omnifleet_worker.engine.request import DiffusionInputs, Request
from omnifleet_worker.models.audio_omni.sampling import prepare_latents

from diffusion.published_loop import PublishedLoop
from diffusion.requests import GUIDANCE, clip

IDLE_ROUNDS = 3
HOST_STEPS = 2000


@dataclass(frozen=True)
class Row:
    """One way of sampling clips."""

    batch: int
    clips_per_second: float
    p50: float
    p99: float
    """Seconds from a clip's submission to its samples."""
    memory_mb: float
    """Peak: of the device's memory, or of the process where there is no GPU."""
    matmul_share: float
    """Operations that a clip's steps cannot do without, beside what the device does in large matrix products."""


class FirstSteps(NoObserver):
    """Notes when diffusion steps end."""

    def __init__(self) -> None:
        self.ended: list[float] = []

    def worked(self, work: Work, requests: int, seconds: float, device_seconds: float) -> None:
        """See `EngineObserver`."""
        if work == "diffusion":
            self.ended.append(time.monotonic())


class Idle:
    """A runner that does nothing, so that what is left is the engine's own work."""

    def prepare(self, request: Request) -> None:
        """Nothing."""

    def advance(self, batch: Sequence[Request]) -> None:
        """Count."""
        for request in batch:
            request.step += 1

    def is_done(self, request: Request) -> bool:
        """After the last step."""
        return request.step >= request.steps

    def finish(self, batch: Sequence[Request]) -> list[Any]:
        """Nothing."""
        return [None] * len(batch)

    def release(self, request: Request) -> None:
        """Nothing."""


def measure_baseline(runner: AudioOmniRunner, steps: int, rate: float) -> tuple[Row, torch.Tensor]:
    """Sample a clip with the published loop, the better of two times; also its latents."""
    pipeline = runner.pipeline
    loop = PublishedLoop(float32_twin(pipeline.transformer))
    inputs, seconds = _inputs(clip(0, steps)), []
    for _ in range(2):
        _reset_memory(pipeline.device)
        start = time.perf_counter()
        tokens = torch.cat([pipeline.encode_prompt(inputs.prompt), pipeline.encode_speech(None)])
        global_tokens = torch.cat([pipeline.encode_sync(None), pipeline.encode_audio(None)])
        noise = prepare_latents(inputs.seed).to(pipeline.device)
        latents = loop.sample(noise, tokens, global_tokens, GUIDANCE, steps)
        pipeline.decode_latents(latents[None]).cpu()
        seconds.append(time.perf_counter() - start)
    best = min(seconds)
    share = steps * step_flops(pipeline.transformer, len(tokens)) / best / rate
    return Row(1, 1 / best, best, best, _memory_mb(pipeline.device), share), latents


def measure_engine(runner: AudioOmniRunner, batch: int, steps: int, rate: float) -> Row:
    """Twice as many clips as share a step, so that some join while others leave."""
    device = runner.pipeline.device
    _reset_memory(device)
    with _running(runner, EngineLimits(clips=batch, chats=1, decoded=min(4, batch))) as engine:
        start, latencies = time.perf_counter(), []
        requests = [engine.submit(clip(number, steps)) for number in range(2 * batch)]
        for request in requests:
            request.outcome.add_done_callback(lambda _: latencies.append(time.perf_counter() - start))
        for request in requests:
            request.outcome.result()
        seconds = time.perf_counter() - start
    synchronise(device)
    tokens = _context_tokens(runner)
    cuts = quantiles(latencies, n=100, method="inclusive") if len(latencies) > 1 else latencies * 99
    share = len(requests) * steps * step_flops(runner.pipeline.transformer, tokens) / seconds / rate
    return Row(batch, len(requests) / seconds, cuts[49], cuts[98], _memory_mb(device), share)


def first_steps(runner: AudioOmniRunner, limits: EngineLimits) -> tuple[float, float]:
    """Seconds from a request to an idle engine to the end of its first step; the second time the same is asked."""
    cold, cached = [], []
    for number in range(IDLE_ROUNDS):
        for times in (cold, cached):
            seen = FirstSteps()
            engine = Engine(runner, limits, observer=seen)
            engine.start()
            start = time.monotonic()
            engine.submit(clip(1000 + number, 1)).outcome.result()
            engine.stop()
            times.append(seen.ended[0] - start)
    return min(cold), min(cached)


def difference(runner: AudioOmniRunner, steps: int, expected: torch.Tensor) -> float:
    """Compare the runner's latents to others: the largest difference, relative to the largest value."""
    request = clip(0, steps)
    runner.prepare(request)
    while not runner.is_done(request):
        runner.advance([request])
    latents = runner.latents(request)
    runner.release(request)
    return float((latents - expected).abs().max() / expected.abs().max())


def host_seconds(batch: int) -> float:
    """Seconds of the engine's own, a step."""
    engine = Engine(Idle(), EngineLimits(clips=batch, chats=1))
    far = time.time() + 10**6
    for number in range(batch):
        request = clip(number, HOST_STEPS)
        request.deadline = far
        engine.submit(request)
    start = time.perf_counter()
    while engine.step():
        pass
    return (time.perf_counter() - start) / HOST_STEPS


def _context_tokens(runner: AudioOmniRunner) -> int:
    return len(runner.pipeline.encode_prompt(_inputs(clip(0, 1)).prompt)) + 256


def _inputs(request: Request) -> DiffusionInputs:
    assert isinstance(request.inputs, DiffusionInputs)
    return request.inputs


@contextmanager
def _running(runner: AudioOmniRunner, limits: EngineLimits) -> Iterator[Engine]:
    engine = Engine(runner, limits)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _memory_mb(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
