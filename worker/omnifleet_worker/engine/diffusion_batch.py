"""Clips that are being sampled: their state, and one solver step of many in one forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.audio_omni.pipeline import AudioOmniPipeline, Conditioning
from ..models.audio_omni.sampling import euler_step, multistep_weights, restore_known
from ..models.audio_omni.transformer import ContextBatch
from .request import DiffusionInputs, Request


@dataclass(frozen=True)
class Known:
    """What a clip holds besides its unknown frames."""

    latents: Tensor
    noise: Tensor
    unknown: Tensor


@dataclass
class Clip:
    """A clip that is being sampled.

    Attributes:
        conditioning: dropped once all steps are taken.
        latents: [64, 236], at the time of the next step.
        times: [steps + 1], from 1 to 0.
        known: of a clip of which a part is known.
        velocity: [64, 236] of the last step, where the solver looks back.
    """

    conditioning: Conditioning | None
    latents: Tensor
    times: Tensor
    known: Known | None = None
    velocity: Tensor | None = None

    @property
    def tensors(self) -> Iterator[Tensor]:
        """Everything that it holds on the device."""
        if self.conditioning is not None:
            yield from (
                self.conditioning.context.keys,
                self.conditioning.context.values,
                self.conditioning.global_embeds,
            )
        yield from (self.latents, self.times)
        if self.known is not None:
            yield from (self.known.latents, self.known.noise, self.known.unknown)

    def move(self, latents: Tensor, time: Tensor) -> None:
        """Take the latents of the next step, the known ones as they are at that time."""
        if self.known is not None:
            latents = restore_known(latents, self.known.latents, self.known.noise, self.known.unknown, time)
        self.latents = latents


@dataclass(frozen=True)
class _Mates:
    """What a batch of clips shares as long as nobody joins or leaves."""

    requests: tuple[Request, ...]
    context: ContextBatch
    global_embeds: Tensor
    guidance: Tensor


class ClipBatch:
    """Steps any clips of one pipeline in one forward. Clips come and go between steps.

    Args:
        pipeline: the model.
    """

    def __init__(self, pipeline: AudioOmniPipeline) -> None:
        self._pipeline = pipeline
        self._mates: _Mates | None = None

    def step(self, clips: dict[Request, Clip]) -> None:
        """One step of every clip with the solver that its request names. Where it raises, nothing has changed."""
        requests = list(clips)
        mates = self._gather(clips)
        latents = torch.stack([clip.latents for clip in clips.values()])
        now, after = (
            torch.stack([clip.times[request.step + ahead] for request, clip in clips.items()]) for ahead in (0, 1)
        )
        velocity = self._pipeline.transformer(latents, now, mates.context, mates.global_embeds, mates.guidance)
        moved = euler_step(latents, _direct(clips, velocity), now, after)
        for request, place, speed, time in zip(requests, moved, velocity, after, strict=True):
            clips[request].move(place, time)
            clips[request].velocity = speed if _looks_back(request) else None
            request.step += 1

    def let_go(self, request: Request) -> None:
        """Forget a clip that is stepped no more."""
        if self._mates is not None and request in self._mates.requests:
            self._mates = None

    def _gather(self, clips: dict[Request, Clip]) -> _Mates:
        if self._mates is None or self._mates.requests != tuple(clips):
            self._mates = None  # before the next one is made: they take gigabytes
            conditionings = [clip.conditioning for clip in clips.values() if clip.conditioning is not None]
            guidance = [request.inputs.guidance for request in clips if isinstance(request.inputs, DiffusionInputs)]
            self._mates = _Mates(
                requests=tuple(clips),
                context=self._pipeline.transformer.collate_context([one.context for one in conditionings]),
                global_embeds=torch.stack([one.global_embeds for one in conditionings]),
                guidance=torch.tensor(guidance),
            )
        return self._mates


def _direct(clips: dict[Request, Clip], velocity: Tensor) -> Tensor:
    """The direction [B, 64, 236] in which each clip's solver moves it."""
    weights = [multistep_weights(request.step) if _looks_back(request) else (1.0, 0.0) for request in clips]
    if not any(before for _, before in weights):
        return velocity
    now, before = torch.tensor(weights, device=velocity.device).T[..., None, None]
    last = [
        speed if clip.velocity is None else clip.velocity for clip, speed in zip(clips.values(), velocity, strict=True)
    ]
    direction: Tensor = now * velocity + before * torch.stack(last)
    return direction


def _looks_back(request: Request) -> bool:
    return isinstance(request.inputs, DiffusionInputs) and request.inputs.solver == "multistep"
