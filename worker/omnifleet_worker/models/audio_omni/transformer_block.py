"""One block of Audio-Omni's diffusion transformer. docs/model.md, "DiT"."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn
from torch.nn import functional

from omnifleet_worker.models.audio_omni.adapters.low_rank import BlockAdapters, LowRank, adapted

Rotary = tuple[Tensor, Tensor]


def _split_heads(hidden: Tensor, heads: int) -> Tensor:
    return hidden.unflatten(-1, (heads, -1)).transpose(-3, -2)


def _join_heads(hidden: Tensor) -> Tensor:
    return hidden.transpose(-3, -2).flatten(-2)


def _rotate(hidden: Tensor, rotary: Rotary) -> Tensor:
    """Rotate the first dimensions of each head, as many as `rotary` has; diffusers does it in float32."""
    turned, kept = hidden.split([rotary[0].shape[-1], hidden.shape[-1] - rotary[0].shape[-1]], dim=-1)
    # Declared for one tensor, or for what it gives where one is rotated by another.
    rotated: Tensor = apply_rotary_emb(turned, rotary, use_real_unbind_dim=-2)  # type: ignore[arg-type, assignment]
    return torch.cat([rotated, kept], dim=-1)


class SelfAttention(nn.Module):
    """Attention of the sequence to itself: fused qkv without bias, rotary positions on part of each head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, hidden: Tensor, rotary: Rotary, adapters: BlockAdapters | None = None) -> Tensor:
        projected = adapted(self.to_qkv, hidden, adapters, "attn1.to_qkv")
        query, key, value = (_split_heads(part, self.heads) for part in projected.chunk(3, dim=-1))
        attended = functional.scaled_dot_product_attention(_rotate(query, rotary), _rotate(key, rotary), value)
        return adapted(self.to_out, _join_heads(attended), adapters, "attn1.to_out")


class CrossAttention(nn.Module):
    """Attention of the sequence to the context, whose keys and values are projected once a request."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def project_context(self, context: Tensor, part: LowRank | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values, each [heads, n, head_dim], of the context [n, width], with an adapter's part of `to_kv`."""
        projected = self.to_kv(context)
        if part is not None:
            projected = projected + context @ part.down.mT @ part.up.mT
        key, value = projected.chunk(2, dim=-1)
        return _split_heads(key, self.heads), _split_heads(value, self.heads)

    def forward(
        self, hidden: Tensor, key: Tensor, value: Tensor, mask: Tensor, adapters: BlockAdapters | None = None
    ) -> Tensor:
        query = _split_heads(adapted(self.to_q, hidden, adapters, "attn2.to_q"), self.heads)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return adapted(self.to_out, _join_heads(attended), adapters, "attn2.to_out")


class TransformerBlock(nn.Module):
    """Pre-norm self-attention, cross-attention and feed-forward, each added to the residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(width, eps=1e-5, bias=False)
        self.attn1 = SelfAttention(width, heads)
        self.norm2 = FP32LayerNorm(width, eps=1e-5, bias=False)
        self.attn2 = CrossAttention(width, heads)
        self.norm3 = FP32LayerNorm(width, eps=1e-5, bias=False)
        self.ff = FeedForward(width, activation_fn="swiglu")

    def forward(
        self,
        hidden: Tensor,
        rotary: Rotary,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        adapters: BlockAdapters | None = None,
    ) -> Tensor:
        """One block over the conditional rows followed by the unconditional ones.

        Args:
            hidden: [B + U, sequence, width]; the last U rows are unconditional.
            rotary: cosines and sines, [sequence, rotary_dim] each.
            key: [B, heads, n, head_dim] of the B conditional rows' context.
            value: as `key`.
            mask: [B, 1, 1, n].
            adapters: of the B + U rows; None where no row has one.
        """
        hidden = hidden + self.attn1(self.norm1(hidden), rotary, adapters)
        # An unconditional context is zeros through bias-free layers: what it would add is exactly nothing.
        if hidden.shape[0] == key.shape[0]:  # said plainly for the compiler, which takes an empty half for no half
            hidden = hidden + self.attn2(self.norm2(hidden), key, value, mask, adapters)
        else:
            conditional, unconditional = hidden.tensor_split([key.shape[0]])
            conditional = conditional + self.attn2(self.norm2(conditional), key, value, mask, adapters)
            hidden = torch.cat([conditional, unconditional])
        return hidden + self._feed_forward(self.norm3(hidden), adapters)

    def _feed_forward(self, hidden: Tensor, adapters: BlockAdapters | None) -> Tensor:
        if adapters is None:
            result: Tensor = self.ff(hidden)
            return result
        # As diffusers' FeedForward and SwiGLU do it, which have no place for what is added to their layers.
        gated: Any = self.ff.net[0]
        value, gate = adapted(gated.proj, hidden, adapters, "ff.net.0.proj").chunk(2, dim=-1)
        return adapted(self.ff.net[2], value * gated.activation(gate), adapters, "ff.net.2")
