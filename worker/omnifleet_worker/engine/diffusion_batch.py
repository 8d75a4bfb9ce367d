"""One solver step of many clips in one forward. Clips come and go between steps.

Whatever a step needs is on the device before it: the host launches it and waits for nothing, so that it can launch the
next one while the device is at work, and a step can be captured as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

import torch
from torch import Tensor

from ..models.audio_omni.adapters.low_rank import AdapterBatch, AppliedAdapter
from ..models.audio_omni.pipeline import AudioOmniPipeline, Conditioning
from ..models.audio_omni.sampling import (
    LATENT_CHANNELS,
    LATENT_FRAMES,
    euler_step,
    restore_known,
    solver_schedule,
)
from ..models.audio_omni.transformer import AudioOmniTransformer, ContextBatch, Guidance
from ..models.streams import LaunchedWork, to_device
from .request import DiffusionInputs, Request


@dataclass(frozen=True)
class Known:
    """What a clip holds besides its unknown frames.

    Attributes:
        latents: clean, [64, 236].
        noise: that the clip started from, [64, 236].
        unknown: bool [236], frames to sample.
    """

    latents: Tensor
    noise: Tensor
    unknown: Tensor


@dataclass
class DiffusionState:
    """A clip that is being sampled.

    Attributes:
        conditioning: dropped once all steps are taken.
        latents: [64, 236], at the time of the next step.
        known: of a clip of which a part is known.
        velocity: [64, 236] of the last step; None before the first.
        launched: the last step, which the device may not have taken yet.
        adapter: that it is sampled with.
    """

    conditioning: Conditioning | None
    latents: Tensor
    known: Known | None = None
    velocity: Tensor | None = None
    launched: LaunchedWork | None = None
    adapter: AppliedAdapter | None = None

    @property
    def tensors(self) -> Iterator[Tensor]:
        """Everything that it holds on the device."""
        if self.conditioning is not None:
            yield from (
                self.conditioning.context.keys,
                self.conditioning.context.values,
                self.conditioning.global_embeds,
            )
        yield self.latents
        if self.known is not None:
            yield from (self.known.latents, self.known.noise, self.known.unknown)


@dataclass(frozen=True)
class BatchTensors:
    """What a step of B clips reads and writes.

    Attributes:
        context: of the B clips.
        global_embeds: [B, 364, width].
        guidance: of the B clips.
        latents: [B, 64, 236]; a step moves them.
        velocity: [B, 64, 236] of the last step, 0 before the first.
        known: clean latents [B, 64, 236], where a part is known.
        noise: that the clips started from, [B, 64, 236], likewise.
        unknown: bool [B, 1, 236], frames to sample.
        adapters: of the B clips; None where none has one.
    """

    context: ContextBatch
    global_embeds: Tensor
    guidance: Guidance
    latents: Tensor
    velocity: Tensor
    known: Tensor
    noise: Tensor
    unknown: Tensor
    adapters: AdapterBatch | None = None

    @classmethod
    def allocate(
        cls,
        pipeline: AudioOmniPipeline,
        context: ContextBatch,
        guidance: Guidance,
        adapters: AdapterBatch | None = None,
    ) -> Self:
        """Allocate what the context's rows need besides it."""
        batch, device = len(context.mask), pipeline.device
        global_embeds = (batch, pipeline.global_tokens, pipeline.transformer.config.width)
        latents = (batch, LATENT_CHANNELS, LATENT_FRAMES)
        return cls(
            context=context,
            guidance=guidance,
            adapters=adapters,
            global_embeds=torch.zeros(global_embeds, dtype=context.keys.dtype, device=device),
            latents=torch.zeros(latents, device=device),
            velocity=torch.zeros(latents, device=device),
            known=torch.zeros(latents, device=device),
            noise=torch.zeros(latents, device=device),
            unknown=torch.ones(batch, 1, LATENT_FRAMES, dtype=torch.bool, device=device),
        )

    def fill(self, states: Sequence[DiffusionState], guidance: Guidance) -> None:
        """Overwrite every row with a clip as it stands."""
        conditionings = [state.conditioning for state in states if state.conditioning is not None]
        self.context.fill([conditioning.context for conditioning in conditionings])
        self.guidance.scale.copy_(guidance.scale)
        for row, (state, conditioning) in enumerate(zip(states, conditionings, strict=True)):
            self.global_embeds[row] = conditioning.global_embeds
            self.latents[row] = state.latents
            self.velocity[row] = 0 if state.velocity is None else state.velocity
            self._fill_known(row, state.known)

    def _fill_known(self, row: int, known: Known | None) -> None:
        self.unknown[row] = True if known is None else known.unknown
        if known is not None:
            self.known[row], self.noise[row] = known.latents, known.noise

    def step(self, transformer: AudioOmniTransformer, moment: Tensor) -> None:
        """Move the latents by one step. Where it raises, nothing has changed: what can fail comes before the copies.

        Args:
            transformer: predicts the velocities.
            moment: [B, 4], the row of each clip's `solver_schedule`.
        """
        now, after, weight, last_weight = moment.unbind(1)
        velocity = transformer(self.latents, now, self.context, self.global_embeds, self.guidance, self.adapters)
        direction = weight[:, None, None] * velocity + last_weight[:, None, None] * self.velocity
        moved = euler_step(self.latents, direction, now, after)
        moved = restore_known(moved, self.known, self.noise, self.unknown, after)
        self.latents.copy_(moved)
        self.velocity.copy_(velocity)


class BatchGraph(Protocol):
    """A step that was captured."""

    tensors: BatchTensors
    """What it reads and writes, whatever clips they hold."""

    def replay(self, moment: Tensor) -> object:
        """Launch the step, as `BatchTensors.step`."""
        ...


class BatchGraphs(Protocol):
    """Captured steps."""

    def find(self, guidance: Guidance, length: int) -> BatchGraph | None:
        """The one for a batch with such guidance and contexts of so many tokens, if there is any."""
        ...


class DiffusionBatch:
    """Steps any clips of one pipeline.

    Args:
        pipeline: the model.
    """

    def __init__(self, pipeline: AudioOmniPipeline) -> None:
        self._pipeline = pipeline
        self._collated: _CollatedBatch | None = None
        self.graphs: BatchGraphs | None = None
        """Steps that are captured; without them, or where none fits, a step's kernels are launched one by one."""

    def step(self, states: Mapping[Request, DiffusionState]) -> None:
        """Launch a step of every clip with the solver that its request names. Where it raises, nothing has changed."""
        self._collate(states).step()
        for request in states:
            request.step += 1
        if any(request.step == request.steps for request in states):
            self._dissolve()

    def remove(self, request: Request) -> None:
        """Forget a clip that is stepped no more."""
        if self._collated is not None and request in self._collated.states:
            self._dissolve()

    def _collate(self, states: Mapping[Request, DiffusionState]) -> _CollatedBatch:
        if self._collated is None or list(self._collated.states) != list(states):
            self._dissolve()  # before the next one is made: they take gigabytes
            self._collated = self._make(states)
        return self._collated

    def _make(self, states: Mapping[Request, DiffusionState]) -> _CollatedBatch:
        pipeline = self._pipeline
        guidance = Guidance.of([_inputs(request).guidance for request in states], pipeline.device)
        length = max(state.conditioning.context.length for state in states.values() if state.conditioning is not None)
        adapters = AdapterBatch.of([state.adapter for state in states.values()])
        # What was captured has no place for adapters: with one in the batch the kernels are launched one by one.
        graph = None if self.graphs is None or adapters is not None else self.graphs.find(guidance, length)
        if graph is not None:
            graph.tensors.fill(list(states.values()), guidance)
            return _CollatedBatch(states, graph.tensors, graph.replay)
        context = pipeline.transformer.empty_context(len(states), length)
        tensors = BatchTensors.allocate(pipeline, context, guidance, adapters)
        tensors.fill(list(states.values()), guidance)
        return _CollatedBatch(states, tensors, partial(tensors.step, pipeline.transformer))

    def _dissolve(self) -> None:
        """Give every clip tensors of its own again: those of a graph are the next batch's."""
        if self._collated is not None:
            self._collated.dissolve()
            self._collated = None


class _CollatedBatch:
    """Clips that share a batch as long as nobody joins or leaves."""

    def __init__(
        self, states: Mapping[Request, DiffusionState], tensors: BatchTensors, launch: Callable[[Tensor], object]
    ) -> None:
        self.states = dict(states)
        self._tensors = tensors
        self._launch = launch
        self._schedule = to_device(_schedule(list(states)), tensors.latents.device)
        self._taken = 0

    def step(self) -> None:
        self._launch(self._schedule[self._taken])
        self._taken += 1

    def dissolve(self) -> None:
        latents, velocity = self._tensors.latents.clone(), self._tensors.velocity.clone()
        for row, state in enumerate(self.states.values()):
            state.latents, state.velocity = latents[row], velocity[row]


def _schedule(requests: Sequence[Request]) -> Tensor:
    """What the steps until the first clip is done are taken with, [steps, B, 4]."""
    steps = min(request.steps - request.step for request in requests)
    rows = [
        solver_schedule(request.steps, multistep=_inputs(request).solver == "multistep")[request.step :][:steps]
        for request in requests
    ]
    return torch.stack(rows, dim=1)


def _inputs(request: Request) -> DiffusionInputs:
    if not isinstance(request.inputs, DiffusionInputs):
        raise TypeError(f"a request of kind {request.kind!r} takes no diffusion steps")
    return request.inputs
