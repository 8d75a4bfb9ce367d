"""Audio-Omni's diffusion transformer (DiT): from noisy latents and conditioning to a velocity. docs/model.md, "DiT"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from diffusers.models.embeddings import GaussianFourierProjection, TimestepEmbedding, get_1d_rotary_pos_embed
from torch import Tensor, nn

from omnifleet_worker.models.audio_omni.adapters.low_rank import AdapterBatch, AppliedAdapter, BlockAdapters
from omnifleet_worker.models.audio_omni.transformer_block import Rotary, TransformerBlock
from omnifleet_worker.models.diffusers_model import DiffusersModel, register_to_config
from omnifleet_worker.models.streams import to_device


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

    def encode_context(self, tokens: Tensor, adapter: AppliedAdapter | None = None) -> CrossAttentionCache:
        """Project context tokens [..., n, 768], unpadded, to every block's keys and values; once a request.

        Args:
            tokens: of the request.
            adapter: of the request, whose keys and values are then that adapter's own.
        """
        context = self.context_embedder(tokens.to(self.dtype))
        parts = [None] * len(self.blocks) if adapter is None else adapter.context_parts()
        projected = [block.attn2.project_context(context, part) for block, part in zip(self.blocks, parts, strict=True)]
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
        self,
        latents: Tensor,
        timesteps: Tensor,
        context: ContextBatch,
        global_embeds: Tensor,
        guidance: Guidance,
        adapters: AdapterBatch | None = None,
    ) -> Tensor:
        """Predict the velocity of B requests, each with its own timestep and guidance.

        Launches the device's work and waits for nothing, so that it can be captured as a CUDA graph.

        Args:
            latents: [B, 64, 236].
            timesteps: [B], 1 (noise) to 0 (clean).
            context: from `collate_context`, in the same order.
            global_embeds: [B, 364, width] from `encode_global`.
            guidance: of the B requests.
            adapters: of the B requests; None where none of them has one.

        Returns:
            Velocity [B, 64, 236], float32.
        """
        sequence = guidance.double(self._embed_sequence(latents, timesteps, global_embeds))
        of_blocks = None if adapters is None else adapters.of_blocks(guidance.double)
        return guidance.combine(self._predict(sequence, context, latents.shape[-1], of_blocks))

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

    def _predict(
        self, sequence: Tensor, context: ContextBatch, frames: int, adapters: Sequence[BlockAdapters] | None = None
    ) -> Tensor:
        """Run the blocks and read the velocity off the last `frames` positions, in float32."""
        rotary = self._rotary(sequence)
        recompute: Any = self._gradient_checkpointing_func if self.gradient_checkpointing else None
        of_blocks: Sequence[BlockAdapters | None] = adapters or [None] * len(self.transformer_blocks)
        for block, key, value, adapted in zip(
            self.transformer_blocks, context.keys, context.values, of_blocks, strict=True
        ):
            given = (sequence, rotary, key, value, context.mask, adapted)
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
