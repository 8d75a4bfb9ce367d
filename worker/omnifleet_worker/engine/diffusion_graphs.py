"""A diffusion step of few clips as one CUDA graph: launched kernel by kernel, the device would wait for the host."""

from __future__ import annotations

import logging
import time
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..models.audio_omni.pipeline import AudioOmniPipeline
from ..models.audio_omni.transformer import ContextBatch, Guidance
from ..models.cuda_graphs import CudaGraph
from .costs import captured_shapes, captured_tokens
from .diffusion_batch import BatchTensors

logger = logging.getLogger(__name__)


class DiffusionGraph:
    """A captured step, and the tensors that it is about.

    Args:
        pipeline: the model.
        context: to be read by the step.
        stream: to capture on.
        pool: of memory.
    """

    def __init__(
        self, pipeline: AudioOmniPipeline, context: ContextBatch, stream: torch.cuda.Stream, pool: Any
    ) -> None:
        clips = len(context.mask)
        self.tensors = BatchTensors.allocate(pipeline, context, Guidance.of([2.0] * clips, pipeline.device))
        moment = torch.zeros(clips, 4, device=pipeline.device)
        self._graph = CudaGraph(partial(self.tensors.step, pipeline.transformer), (moment,), stream, pool)

    def replay(self, moment: Tensor) -> None:
        """Launch the step, as `BatchTensors.step`."""
        self._graph.replay(moment)


class DiffusionGraphs:
    """Steps of few guided clips, one graph for each number of them and each padded length of their contexts.

    All contexts share the memory of the largest batch of them: many clips with short ones, or few with long ones.

    Args:
        pipeline: the model, on a GPU; compiled and warm, if it is to be compiled.
        most_clips: that share a step.
    """

    def __init__(self, pipeline: AudioOmniPipeline, most_clips: int) -> None:
        self._pipeline = pipeline
        self._shapes = captured_shapes(pipeline.context_tokens, most_clips)
        self._lengths = sorted({length for _, length in self._shapes})
        self._captured: dict[tuple[int, int], DiffusionGraph] = {}

    @torch.inference_mode()
    def capture(self) -> None:
        """Capture every shape."""
        start, device = time.monotonic(), self._pipeline.device
        largest = self._pipeline.transformer.empty_context(1, captured_tokens(self._shapes))
        for tokens in (largest.keys, largest.values):
            tokens.zero_()
        stream, pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        for clips, length in self._shapes:
            try:
                graph = DiffusionGraph(self._pipeline, _part(largest, clips, length), stream, pool)
            except RuntimeError as error:
                extra = {"action": "step_not_captured", "clips": clips, "length": length}
                logger.warning("steps of %d clips are launched kernel by kernel: %s", clips, error, extra=extra)
            else:
                self._captured[clips, length] = graph
        seconds = time.monotonic() - start
        extra = {"action": "steps_captured", "graphs": len(self._captured), "seconds": seconds}
        logger.info("captured %d diffusion steps in %.1f s", len(self._captured), seconds, extra=extra)

    def find(self, guidance: Guidance, length: int) -> DiffusionGraph | None:
        """Find the graph for a batch with such guidance and contexts of so many tokens, if there is any."""
        if guidance.rows is not None:
            return None
        padded = next(one for one in self._lengths if one >= length)
        return self._captured.get((len(guidance.scale), padded))


def _part(largest: ContextBatch, clips: int, length: int) -> ContextBatch:
    """A batch of contexts in the memory of the largest one."""
    blocks, _, heads, _, features = largest.keys.shape
    shape = (blocks, clips, heads, length, features)
    keys, values = (whole.flatten()[: prod(shape)].view(shape) for whole in (largest.keys, largest.values))
    return ContextBatch(keys, values, torch.ones(clips, 1, 1, length, dtype=torch.bool, device=keys.device))
