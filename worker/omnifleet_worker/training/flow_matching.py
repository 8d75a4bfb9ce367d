"""The rectified-flow loss: how far the velocity is from the straight way between noise and clip.

Lipman et al., Flow Matching for Generative Modeling (arXiv 2210.02747); Liu et al., Flow Straight and Fast
(arXiv 2209.03003).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from .batches import Batch


@dataclass(frozen=True)
class NoisedBatch:
    """Examples on their way from noise.

    Attributes:
        batch: the clean ones.
        times: [B], 1 (noise) to 0 (clean).
        noise: [B, 64, frames].
        conditional: bool [B], whether an example keeps its text.
    """

    batch: Batch
    times: Tensor
    noise: Tensor
    conditional: Tensor

    @property
    def latents(self) -> Tensor:
        """Those at their times, [B, 64, frames]."""
        share = self.times[:, None, None]
        return share * self.noise + (1 - share) * self.batch.latents

    @property
    def velocity(self) -> Tensor:
        """What the model is to say, [B, 64, frames]."""
        return self.noise - self.batch.latents

    def to(self, device: torch.device) -> Self:
        """Copy it to the device."""
        drawn = (self.times, self.noise, self.conditional)
        return type(self)(self.batch.to(device), *(tensor.to(device) for tensor in drawn))


@dataclass(frozen=True)
class FlowMatchingLoss:
    """Mean square error of the velocity.

    Attributes:
        unconditional_share: of examples that are learned without their text.
        time_shift: 1 draws all times alike, more draws more of them near the noise.
    """

    unconditional_share: float = 0.1
    time_shift: float = 1.0

    def draw(self, batch: Batch) -> NoisedBatch:
        """Draw times, noise and what is unconditional from torch's own generator of the CPU, on any device alike."""
        uniform, noise = torch.rand(len(batch.tasks)), torch.randn(batch.latents.shape)
        conditional = torch.rand(len(batch.tasks)) >= self.unconditional_share
        times = self.time_shift * uniform / (1 + (self.time_shift - 1) * uniform)
        return NoisedBatch(batch, times, noise, conditional)

    @staticmethod
    def of_examples(model: nn.Module, noised: NoisedBatch) -> Tensor:
        """The loss of each example, [B] float32."""
        batch = noised.batch
        # Zeros are the unconditional context: through layers without bias they add exactly nothing.
        context = batch.context * noised.conditional[:, None, None]
        velocity: Tensor = model(noised.latents, noised.times, context, batch.mask, batch.global_tokens)
        return (velocity.float() - noised.velocity).square().mean(dim=(1, 2))


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Let everything that torch draws in the block follow from these numbers, and nothing after it."""
    (seed,) = np.random.SeedSequence([number % 2**64 for number in numbers]).generate_state(1, np.uint64)
    # Its own GPU alone: whoever asks another one for its generator takes memory there.
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(int(seed))
        yield
