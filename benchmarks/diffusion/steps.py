"""Milliseconds of a diffusion step, by batch size and by how it is launched."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from models import synchronise
from omnifleet_worker.engine.costs import CAPTURED_LENGTHS
from omnifleet_worker.engine.diffusion_graphs import DiffusionGraph
from omnifleet_worker.engine.model_runner import AudioOmniRunner
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engine.warm_up import compile_blocks

from diffusion.requests import clip

WARM, MEASURED = 3, 8
ENOUGH_STEPS = 1000
AHEAD = 2
"""Steps that are launched at most before the first of them is done, as in the engine."""


@dataclass
class StepTimes:
    """Milliseconds of a step of so many clips; None where it was not measured."""

    batch: int
    eager: float | None = None
    compiled: float | None = None
    graph: float | None = None
    """Compiled, as one CUDA graph: what the device takes where it never waits for the host."""
    fp8: float | None = None
    """Compiled, with linear layers in float8."""
    fp8_graph: float | None = None

    @property
    def gap(self) -> float | None:
        """Part of a compiled step in which the device waits for the host."""
        return None if self.compiled is None or self.graph is None else max(0.0, 1 - self.graph / self.compiled)


def launched_ms(runner: AudioOmniRunner, batch: int) -> float:
    """Measure a step that is launched kernel by kernel, one ahead of the device."""
    graphs, runner._batch.graphs = runner._batch.graphs, None
    try:
        with prepared(runner, [clip(number, ENOUGH_STEPS) for number in range(batch)]) as requests:
            return _timed(runner, lambda: runner.advance(requests))
    finally:
        runner._batch.graphs = graphs


def graph_ms(runner: AudioOmniRunner, batch: int) -> float | None:
    """Measure a step as a CUDA graph; None on a CPU."""
    pipeline = runner.pipeline
    if pipeline.device.type != "cuda":
        return None
    with torch.inference_mode():
        context = pipeline.transformer.empty_context(batch, CAPTURED_LENGTHS[0])
        stream, pool = torch.cuda.Stream(pipeline.device), torch.cuda.graph_pool_handle()
        graph = DiffusionGraph(pipeline, context, stream, pool)
        moment = torch.zeros(batch, 4, device=pipeline.device)
        return _timed(runner, lambda: graph.replay(moment))


def compile_anew(runner: AudioOmniRunner) -> None:
    """Forget what was compiled, and have the blocks compiled as they are now."""
    torch.compiler.set_stance("default")
    torch._dynamo.reset()
    for block in runner.pipeline.transformer.transformer_blocks:
        block._compiled_call_impl = None
    compile_blocks(runner.pipeline)


@contextmanager
def prepared(runner: AudioOmniRunner, requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    """Prepare requests, and release them at the end."""
    try:
        for request in requests:
            runner.prepare(request)
        yield requests
    finally:
        for request in requests:
            runner.release(request)


def _timed(runner: AudioOmniRunner, launch: Callable[[], Any]) -> float:
    device = runner.pipeline.device
    measured = MEASURED if device.type == "cuda" else 2
    for _ in range(WARM if device.type == "cuda" else 1):
        launch()
    synchronise(device)
    start, launched = time.perf_counter(), deque[Any]()
    for _ in range(measured):
        launched.append(launch())
        if len(launched) == AHEAD and (oldest := launched.popleft()) is not None:
            oldest.wait()
    synchronise(device)
    return (time.perf_counter() - start) / measured * 1000
