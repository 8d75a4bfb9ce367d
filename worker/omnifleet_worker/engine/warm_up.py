"""Before the first job: compile the transformer's blocks, run every batch size once, measure what a clip holds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch.compiler import config as compiler

from ..models.audio_omni.adapters.low_rank import RANK_STEP, AdapterWeights, AppliedAdapter
from ..models.audio_omni.adapters.reader import layer_sizes
from ..models.audio_omni.chat import Chat
from ..models.audio_omni.pipeline import AudioOmniPipeline
from ..models.audio_omni.sampling import prepare_latents
from .costs import CONTEXT_COPIES, RequestCosts
from .diffusion_batch import DiffusionBatch, DiffusionState
from .limits import EngineLimits
from .model_runner import AudioOmniRunner
from .request import ChatInputs, DiffusionInputs, Request

logger = logging.getLogger(__name__)
Peak = Callable[[Callable[[], None]], int]
"""Bytes that the device had in use while a call was made, beyond those before and after it."""

_CHAT = Chat(system="Answer.", user="Are you there?")
_WARM_STEPS = 2
_VARIANTS = 16
"""Compilations of a block: one or several rows, none, one or several of them guided, each with and without adapters;
with some room."""


def compile_blocks(pipeline: AudioOmniPipeline, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile the transformer's blocks and the thinker's layers, for all of them and for every batch size at once.

    Nothing is compiled yet when it returns, but at the first steps: `warm_up` takes them, before `end_compilation`.

    Args:
        pipeline: on its device.
        backend: of `torch.compile`.
    """
    compiler.recompile_limit = max(compiler.recompile_limit, _VARIANTS)
    compile_all: Callable[..., None] = pipeline.transformer.compile_repeated_blocks
    compile_all(fullgraph=True, dynamic=True, backend=backend)
    pipeline.chatter.compile(backend)


def end_compilation() -> None:
    """From now on, what none of the compilations fits is run as it is: no job is to wait for the compiler."""
    torch.compiler.set_stance("eager_on_recompile")


def warm_up(runner: AudioOmniRunner, limits: EngineLimits, *, adapted: bool = False) -> None:
    """Take every kind of step once, at every batch size that makes a difference, so that no job is the first one.

    Args:
        runner: to warm up.
        limits: say how large batches may be.
        adapted: with adapters too. Their number and ranks make no difference.
    """
    start = time.monotonic()
    for size in _sizes(limits.clips):
        for guided in _guided(size):
            _sample(runner, size, guided, decode=size <= limits.decoded)
    if adapted:
        adapter = _adapter(runner.pipeline)
        for size in _sizes(min(2, limits.clips)):
            for guided in _guided(size):
                _sample(runner, size, guided, decode=False, adapter=adapter)
    runner.pipeline.chatter.capture(limits.chats)
    runner.capture_steps(limits.clips)
    for size in _sizes(limits.chats):
        _answer(runner, size)
    seconds = time.monotonic() - start
    logger.info("warmed up in %.1f s", seconds, extra={"action": "warmed_up", "seconds": seconds})


def measure_costs(runner: AudioOmniRunner, planned: RequestCosts, peak: Peak | None = None) -> RequestCosts:
    """The planned costs, with the activations of a clip as they are measured; as planned where nothing can be.

    Args:
        runner: of the pipeline that is measured, warm.
        planned: what the formulas say.
        peak: measures; CUDA's own statistics by default, where the pipeline is on a GPU.
    """
    if peak is None and runner.pipeline.device.type != "cuda":
        return planned
    peaks = [(peak or _cuda_peak)(partial(_step_longest, runner.pipeline, size)) for size in (1, 2)]
    held = CONTEXT_COPIES * sum(tensor.nbytes for tensor in _longest_clip(runner.pipeline, 0).tensors)
    activations = max(0, peaks[1] - peaks[0] - held)
    extra = {"action": "costs_measured", "clip_activations": activations, "planned": planned.clip_activations}
    logger.info("a clip's rows take %.2f GB in a step", activations / 1e9, extra=extra)
    return replace(planned, clip_activations=activations)


def _sizes(most: int) -> Iterator[int]:
    """1, 2, 4 … and `most`."""
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def _guided(size: int) -> list[int]:
    """How many of so many rows are guided: one row is another shape than several, and none is another still."""
    return sorted({0, 1, size}) if size <= 2 else [size]


def _sample(
    runner: AudioOmniRunner, size: int, guided: int, *, decode: bool, adapter: AppliedAdapter | None = None
) -> None:
    requests = [_clip_request(number, 7.0 if number < guided else 1.0, adapter) for number in range(size)]
    _run(runner, requests, finish=decode)


def _answer(runner: AudioOmniRunner, size: int) -> None:
    inputs = ChatInputs(chat=_CHAT, max_new_tokens=_WARM_STEPS + 1, temperature=0.0, seed=0)
    _run(runner, [Request(inputs=inputs) for _ in range(size)], finish=True)


def _run(runner: AudioOmniRunner, requests: list[Request], *, finish: bool) -> None:
    try:
        for request in requests:
            runner.prepare(request)
        for _ in range(_WARM_STEPS):
            runner.advance(requests)
        if finish:
            runner.finish(requests)
    finally:
        for request in requests:
            runner.release(request)


def _clip_request(seed: int, guidance: float, adapter: AppliedAdapter | None = None) -> Request:
    about: dict[str, Any] = {"steps": _WARM_STEPS, "guidance": guidance, "seed": seed, "adapter": adapter}
    return Request(inputs=DiffusionInputs(prompt=_CHAT, speech="one two", **about))


def _adapter(pipeline: AudioOmniPipeline) -> AppliedAdapter:
    """One that changes nothing."""
    transformer = pipeline.transformer
    about = (layer_sizes(transformer), len(transformer.blocks), RANK_STEP, transformer.proj_in.weight)
    return AppliedAdapter(sha256="", scale=1.0, weights=AdapterWeights.zeros(*about))


def _longest_clip(pipeline: AudioOmniPipeline, seed: int) -> DiffusionState:
    """A clip with as many context tokens as any can have."""
    device, tokens = pipeline.device, pipeline.omni_projection.max_tokens
    conditioning = pipeline.encode_conditioning(
        prompt=torch.randn(tokens, pipeline.omni_projection.config.conditioning_features, device=device),
        speech=pipeline.encode_speech(None),
        audio=pipeline.encode_audio(None),
        sync=pipeline.encode_sync(None),
    )
    return DiffusionState(conditioning, prepare_latents(seed).to(device))


def _step_longest(pipeline: AudioOmniPipeline, size: int) -> None:
    states = {_clip_request(seed, guidance=7.0): _longest_clip(pipeline, seed) for seed in range(size)}
    with torch.inference_mode():
        DiffusionBatch(pipeline).step(states)


def _cuda_peak(work: Callable[[], None]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
