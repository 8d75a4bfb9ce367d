"""Audio-Omni's diffusion transformer (DiT): from noisy latents and conditioning to a velocity. docs/model.md, "DiT"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.embeddings import (
    GaussianFourierProjection,
    TimestepEmbedding,
    apply_rotary_emb,
    get_1d_rotary_pos_embed,
)
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn
from torch.nn import functional

from omnifleet_worker.models.diffusers_model import DiffusersModel, register_to_config
from omnifleet_worker.models.streams import to_device

Rotary = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class CrossAttentionCache:
    """One request's context as each block's cross-attention keys and values, which no diffusion step changes.

    Attributes:
        keys: [blocks, heads, n, head_dim] for n context tokens.
        values: as `keys`.
    """

    keys: Tensor
    values: Tensor

    @property
    def length(self) -> int:
        """Number n of context tokens."""
        return self.keys.shape[-2]


@dataclass(frozen=True)
class ContextBatch:
    """The contexts of B requests, padded to n tokens.

    Attributes:
        keys: [blocks, B, heads, n, head_dim].
        values: as `keys`.
        mask: [B, 1, 1, n], True where a token is real.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor

    def fill(self, caches: Sequence[CrossAttentionCache]) -> None:
        """Overwrite it with as many contexts as it has rows, none of them longer than n; the host waits for nothing."""
        self.mask.zero_()
        for row, cache in enumerate(caches):
            for padded, tokens in ((self.keys[:, row], cache.keys), (self.values[:, row], cache.values)):
                padded[..., : cache.length, :] = tokens
                padded[..., cache.length :, :] = 0  # masked, yet what is no number would spread all the same
            self.mask[row, ..., : cache.length] = True


@dataclass(frozen=True)
class Guidance:
    """How strongly each request of a batch is guided.

    Attributes:
        scale: [G, 1, 1] of the G requests that are guided at all.
        rows: [G], which of the batch they are; None where all are.
    """

    scale: Tensor
    rows: Tensor | None

    @classmethod
    def of(cls, scales: Sequence[float], device: torch.device) -> Self:
        """Put the scales of a batch on the device. Those with scale 1 need no unconditional row and get none."""
        rows = [row for row, scale in enumerate(scales) if scale != 1]
        return cls(
            scale=to_device(torch.tensor([scales[row] for row in rows], dtype=torch.float32), device)[:, None, None],
            rows=None if len(rows) == len(scales) else to_device(torch.tensor(rows, dtype=torch.long), device),
        )

    def double(self, sequence: Tensor) -> Tensor:
        """Put the unconditional rows behind the conditional ones [B, ...]."""
        return torch.cat([sequence, sequence if self.rows is None else sequence[self.rows]])

    def combine(self, velocity: Tensor) -> Tensor:
        """Velocity [B, 64, 236] of what `double` made [B + G, 64, 236]."""
        conditional, unconditional = velocity.tensor_split([len(velocity) - len(self.scale)])
        if self.rows is None:
            return unconditional + (conditional - unconditional) * self.scale
        guided = unconditional + (conditional[self.rows] - unconditional) * self.scale
        return conditional.index_copy(0, self.rows, guided)


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

    def forward(self, hidden: Tensor, rotary: Rotary) -> Tensor:
        query, key, value = (_split_heads(part, self.heads) for part in self.to_qkv(hidden).chunk(3, dim=-1))
        attended = functional.scaled_dot_product_attention(_rotate(query, rotary), _rotate(key, rotary), value)
        return self.to_out(_join_heads(attended))


class CrossAttention(nn.Module):
    """Attention of the sequence to the context, whose keys and values are projected once a request."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(width, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def project_context(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each [heads, n, head_dim], of the context [n, width]."""
        key, value = self.to_kv(context).chunk(2, dim=-1)
        return _split_heads(key, self.heads), _split_heads(value, self.heads)

    def forward(self, hidden: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        query = _split_heads(self.to_q(hidden), self.heads)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.to_out(_join_heads(attended))


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

    def forward(self, hidden: Tensor, rotary: Rotary, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """One block over the conditional rows followed by the unconditional ones.

        Args:
            hidden: [B + U, sequence, width]; the last U rows are unconditional.
            rotary: cosines and sines, [sequence, rotary_dim] each.
            key: [B, heads, n, head_dim] of the B conditional rows' context.
            value: as `key`.
            mask: [B, 1, 1, n].
        """
        hidden = hidden + self.attn1(self.norm1(hidden), rotary)
        # An unconditional context is zeros through bias-free layers: what it would add is exactly nothing.
        if hidden.shape[0] == key.shape[0]:  # said plainly for the compiler, which takes an empty half for no half
            hidden = hidden + self.attn2(self.norm2(hidden), key, value, mask)
        else:
            conditional, unconditional = hidden.tensor_split([key.shape[0]])
            conditional = conditional + self.attn2(self.norm2(conditional), key, value, mask)
            hidden = torch.cat([conditional, unconditional])
        return hidden + self.ff(self.norm3(hidden))


def _bias_free_mlp(in_features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, width, bias=False), nn.SiLU(), nn.Linear(width, width, bias=False))


class AudioOmniTransformer(DiffusersModel):
    """The DiT of Audio-Omni (arXiv 2604.10708; docs/model.md, "DiT"), with classifier-free guidance inside.

    Args:
        width: features of the sequence.
        depth: number of blocks.
        heads: attention heads; `width` is a multiple of it.
        latent_channels: channels of the VAE's latents.
        conditioning_features: features of the context and global tokens.
        timestep_features: Fourier frequencies of the timestep.
        rotary_dim: leading dimensions of each head that carry the position.
    """

    # All are small; frequencies in bfloat16 would move a timestep by more than a step of the sampler.
    _keep_in_fp32_modules = ["time_proj", "norm1", "norm2", "norm3"]  # type: ignore[assignment]  # noqa: RUF012, None there
    # All are of one shape, so one compilation serves them all (`compile_repeated_blocks`).
    _repeated_blocks = ["TransformerBlock"]  # noqa: RUF012, diffusers declares it of the instance
    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        width: int = 2048,
        depth: int = 36,
        heads: int = 32,
        latent_channels: int = 64,
        conditioning_features: int = 768,
        timestep_features: int = 128,
        rotary_dim: int = 32,
    ) -> None:
        super().__init__()
        self.rotary_dim = rotary_dim
        self.gradient_checkpointing = False
        self._rotaries: dict[torch.device, Rotary] = {}
        self.time_proj = GaussianFourierProjection(
            timestep_features, set_W_to_weight=False, log=False, flip_sin_to_cos=True
        )
        self.timestep_embedder = TimestepEmbedding(2 * timestep_features, width)
        self.context_embedder = _bias_free_mlp(conditioning_features, width)
        self.global_embedder = _bias_free_mlp(conditioning_features, width)
        self.conv_in = nn.Conv1d(latent_channels, latent_channels, kernel_size=1, bias=False)
        self.proj_in = nn.Linear(latent_channels, width, bias=False)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.proj_out = nn.Linear(width, latent_channels, bias=False)
        self.conv_out = nn.Conv1d(latent_channels, latent_channels, kernel_size=1, bias=False)

    @property
    def blocks(self) -> list[TransformerBlock]:
        """Its blocks, the first one first."""
        return [block for block in self.transformer_blocks if isinstance(block, TransformerBlock)]

    def encode_context(self, tokens: Tensor) -> CrossAttentionCache:
        """Project context tokens [..., n, 768], unpadded, to every block's keys and values; once a request."""
        context = self.context_embedder(tokens.to(self.dtype))
        projected = [block.attn2.project_context(context) for block in self.blocks]
        return CrossAttentionCache(*(torch.stack(parts) for parts in zip(*projected, strict=True)))

    def encode_global(self, tokens: Tensor) -> Tensor:
        """Project global tokens [364, 768] to [364, width]; once a request."""
        return self.global_embedder(tokens.to(self.dtype))

    def empty_context(self, batch: int, length: int) -> ContextBatch:
        """Allocate a batch of contexts of so many tokens, to be filled."""
        config = self.config
        shape = (config.depth, batch, config.heads, length, config.width // config.heads)
        mask = torch.empty(batch, 1, 1, length, dtype=torch.bool, device=self.device)
        keys, values = (torch.empty(shape, dtype=self.dtype, device=self.device) for _ in range(2))
        return ContextBatch(keys, values, mask)

    def collate_context(self, caches: Sequence[CrossAttentionCache]) -> ContextBatch:
        """Put the contexts of B requests side by side, padded to the longest of them."""
        batch = self.empty_context(len(caches), max(cache.length for cache in caches))
        batch.fill(caches)
        return batch

    def embed_timestep(self, timesteps: Tensor) -> Tensor:
        """Embed timesteps [B] in [0, 1] as [B, width]; the Fourier features are taken in float32."""
        return self.timestep_embedder(self.time_proj(timesteps.float()).to(self.dtype))

    def forward(
        self, latents: Tensor, timesteps: Tensor, context: ContextBatch, global_embeds: Tensor, guidance: Guidance
    ) -> Tensor:
        """Predict the velocity of B requests, each with its own timestep and guidance.

        Launches the device's work and waits for nothing, so that it can be captured as a CUDA graph.

        Args:
            latents: [B, 64, 236].
            timesteps: [B], 1 (noise) to 0 (clean).
            context: from `collate_context`, in the same order.
            global_embeds: [B, 364, width] from `encode_global`.
            guidance: of the B requests.

        Returns:
            Velocity [B, 64, 236], float32.
        """
        sequence = guidance.double(self._embed_sequence(latents, timesteps, global_embeds))
        return guidance.combine(self._predict(sequence, context, latents.shape[-1]))

    def predict_from_tokens(
        self, latents: Tensor, timesteps: Tensor, context: Tensor, mask: Tensor, global_tokens: Tensor
    ) -> Tensor:
        """Predict velocities unguided, with all weights in the graph: for training.

        Args:
            latents: [B, 64, frames].
            timesteps: [B], 1 (noise) to 0 (clean).
            context: tokens [B, n, 768]; zeros in place of them are the unconditional context.
            mask: bool [B, n], True where a token is real.
            global_tokens: [B, 364, 768].

        Returns:
            Velocity [B, 64, frames], float32.
        """
        projected = self.encode_context(context)
        batch = ContextBatch(projected.keys, projected.values, mask[:, None, None])
        sequence = self._embed_sequence(latents, timesteps, self.encode_global(global_tokens))
        return self._predict(sequence, batch, latents.shape[-1])

    def _embed_sequence(self, latents: Tensor, timesteps: Tensor, global_embeds: Tensor) -> Tensor:
        """[B, 364 + 236, width]: the global tokens with the timestep added, then the latents."""
        latents = latents.to(self.dtype)
        embedded = self.proj_in((latents + self.conv_in(latents)).mT)
        return torch.cat([global_embeds + self.embed_timestep(timesteps)[:, None], embedded], dim=1)

    def _predict(self, sequence: Tensor, context: ContextBatch, frames: int) -> Tensor:
        """Run the blocks and read the velocity off the last `frames` positions, in float32."""
        rotary = self._rotary(sequence)
        recompute: Any = self._gradient_checkpointing_func if self.gradient_checkpointing else None
        for block, key, value in zip(self.transformer_blocks, context.keys, context.values, strict=True):
            given = (sequence, rotary, key, value, context.mask)
            sequence = block(*given) if recompute is None else recompute(block, *given)
        velocity = self.proj_out(sequence[:, -frames:]).mT
        return (velocity + self.conv_out(velocity)).float()

    def _rotary(self, sequence: Tensor) -> Rotary:
        """Of every position; the same at every step, so worked out once."""
        known = self._rotaries.get(sequence.device)
        if known is None or len(known[0]) != sequence.shape[1]:
            positions = torch.arange(sequence.shape[1], device=sequence.device)
            cosines, sines = get_1d_rotary_pos_embed(
                self.rotary_dim,
                positions,  # type: ignore[arg-type]  # declared for arrays of numpy, and made for tensors
                use_real=True,
                repeat_interleave_real=False,
            )
            known = cosines, sines
            self._rotaries[sequence.device] = known
        return known
