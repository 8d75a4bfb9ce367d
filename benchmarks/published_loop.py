"""What the published inference does at each step, with this project's weights: the baseline of `engine.py`.

One request at a time, float32 weights (under autocast on a GPU), 2,304 context rows of which most are padding,
projected anew in every block at every step, and both branches of the guidance in full (docs/model.md, "DiT").
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from omnifleet_worker.models.audio_omni.sampling import euler_times
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from torch import Tensor
from torch.nn import functional

CONTEXT_ROWS = 2048 + 256


class PublishedLoop:
    """Samples one clip after the other.

    Args:
        transformer: with float32 weights.
    """

    def __init__(self, transformer: AudioOmniTransformer) -> None:
        self._transformer = transformer

    @torch.inference_mode()
    def sample(self, noise: Tensor, tokens: Tensor, global_tokens: Tensor, guidance: float, steps: int) -> Tensor:
        """Latents [64, 236] after so many Euler steps from the noise; `tokens` [n, 768] and [364, 768] condition it."""
        padding = CONTEXT_ROWS - len(tokens)
        context = functional.pad(tokens, (0, 0, 0, padding))
        mask = torch.arange(CONTEXT_ROWS, device=tokens.device) < len(tokens)
        latents = noise
        for now, after in euler_times(steps).unfold(0, 2, 1).tolist():
            velocity = self._velocity(latents, now, context, mask, global_tokens, guidance)
            latents = latents + (after - now) * velocity
        return latents

    def _velocity(
        self, latents: Tensor, time: float, context: Tensor, mask: Tensor, global_tokens: Tensor, guidance: float
    ) -> Tensor:
        model = self._transformer
        rows = torch.stack([context, torch.zeros_like(context)])
        with self._autocast(latents.device):
            sequence = model._embed_sequence(
                latents.expand(2, -1, -1),
                torch.full((2,), time, device=latents.device),
                model.global_embedder(global_tokens).expand(2, -1, -1),
            )
            embedded, rotary = model.context_embedder(rows), model._rotary(sequence)
            for block in model.transformer_blocks:
                keys, values = zip(*(block.attn2.project_context(row) for row in embedded), strict=True)
                both = mask.expand(2, 1, 1, -1)
                sequence = block(sequence, rotary, torch.stack(keys), torch.stack(values), both)
            velocity = model.proj_out(sequence[:, -latents.shape[-1] :]).mT
            conditional, unconditional = (velocity + model.conv_out(velocity)).float()
        return unconditional + (conditional - unconditional) * guidance

    @staticmethod
    def _autocast(device: torch.device) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
