"""Rectified-flow sampling and the last steps to audio: pure functions on tensors. docs/model.md, "Sampling".

The published sampler is Euler's. The second-order one is this project's (Hairer, Nørsett, Wanner, Solving Ordinary
Differential Equations I, III.1).
"""

from __future__ import annotations

import torch
from omnifleet_shared.schema.model_card import SAMPLE_RATE as SAMPLE_RATE
from torch import Tensor

LATENT_CHANNELS = 64
LATENT_FRAMES = 236
"""Frames of the one fixed window; each decodes to 2,048 samples."""
FRAME_SAMPLES = 2048
CLIP_SAMPLES = LATENT_FRAMES * FRAME_SAMPLES
"""Samples of one decoded window: 483,328, or 10.96 s."""

_SILENCE = 1e-8


def prepare_latents(seed: int) -> Tensor:
    """Draw the noise a request starts from, [64, 236] float32, on the CPU so that every device agrees on it."""
    return torch.randn(LATENT_CHANNELS, LATENT_FRAMES, generator=torch.Generator().manual_seed(seed))


def euler_times(steps: int) -> Tensor:
    """Times [steps + 1] from 1 (noise) to 0 (clean) in equal steps, float32."""
    return torch.linspace(1, 0, steps + 1)


def euler_step(latents: Tensor, velocity: Tensor, time: Tensor, time_next: Tensor) -> Tensor:
    """Move latents [B, 64, 236] along their velocity, each from its own `time` [B] to its own `time_next` [B]."""
    return latents + (time_next - time)[:, None, None] * velocity


def multistep_weights(step: int) -> tuple[float, float]:
    """Weights of this step's velocity and of the last one's in the second-order step (Adams-Bashforth).

    At the same number of model calls as Euler's it follows a curved path to second order, so that 25 of its steps end
    nearer to the exact solution than 100 of Euler's (README, "Measured"). The first step has no velocity before it.
    """
    return (1.5, -0.5) if step else (1.0, 0.0)


def solver_schedule(steps: int, *, multistep: bool) -> Tensor:
    """What each of a solver's steps is taken with, [steps, 4] float32.

    A row holds the times before and after the step, and the weights of its velocity and of the last one's.
    """
    times = euler_times(steps)
    weights = torch.tensor([multistep_weights(step if multistep else 0) for step in range(steps)])
    return torch.cat([times[:-1, None], times[1:, None], weights], dim=1)


def restore_known(latents: Tensor, known: Tensor, noise: Tensor, unknown: Tensor, time: Tensor) -> Tensor:
    """Put the known part of a clip back where it belongs on its way from noise, time·noise + (1 − time)·known.

    Args:
        latents: [B, 64, 236], each at its own `time`.
        known: clean latents [B, 64, 236].
        noise: that each clip started from, [B, 64, 236].
        unknown: bool [B, 1, 236], frames that stay as they are.
        time: [B], from 1 (noise) to 0 (clean).
    """
    share = time[:, None, None]
    return torch.where(unknown, latents, share * noise + (1 - share) * known)


def normalise_peak(audio: Tensor) -> Tensor:
    """Scale each clip of [..., channels, samples] to a peak of 1 and clamp it to ±1; silence stays silent."""
    peak = audio.abs().amax(dim=(-2, -1), keepdim=True)
    return (audio / peak.clamp(min=_SILENCE)).clamp(-1, 1)


def to_int16(audio: Tensor) -> Tensor:
    """Turn float audio in ±1 to int16: times 32,767, cut towards zero as the published model does."""
    return (audio * 32_767).to(torch.int16)
