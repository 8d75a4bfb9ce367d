"""Synchformer's video encoder: what moves when, as features that tie the sound to the pictures.

docs/model.md, "Synchformer (video encoder)": Motionformer with divided space-time attention.
"""

from __future__ import annotations

import torch
from diffusers.models.attention import FeedForward
from torch import Tensor, nn
from torch.nn import functional

from omnifleet_worker.models.audio_omni.video import FRAME_SIDE, SEGMENT_FRAMES
from omnifleet_worker.models.diffusers_model import DiffusersModel, register_to_config

_PATCH = (2, 16, 16)
_TIMES = SEGMENT_FRAMES // _PATCH[0]
_PLACES = (FRAME_SIDE // _PATCH[1]) ** 2

# A video's thirty segments at once would take gigabytes of activations beside a model that fills the device.
_SEGMENTS_AT_ONCE = 6


class _DividedAttention(nn.Module):
    """Attention of every patch to a group of patches and to the CLS token, and of the CLS token to all.

    Args:
        width: of the tokens.
        heads: attention heads.
        along: "time", where a group is one place at all times, or "space", one time at all places.
    """

    def __init__(self, width: int, heads: int, along: str) -> None:
        super().__init__()
        self.heads = heads
        self.along_time = along == "time"
        self.to_qkv = nn.Linear(width, 3 * width)
        self.to_out = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """[N, 1 + 1568, width], the CLS token first and the patches time-major, to the same."""
        query, key, value = (self._split_heads(part) for part in self.to_qkv(hidden).chunk(3, dim=-1))
        cls = functional.scaled_dot_product_attention(query[:, :, :1], key, value)
        patches = self._attend_in_groups(query[:, :, 1:], key, value)
        return self.to_out(torch.cat([cls, patches], dim=2).transpose(1, 2).flatten(2))

    def _split_heads(self, hidden: Tensor) -> Tensor:
        return hidden.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _attend_in_groups(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = functional.scaled_dot_product_attention(
            self._group(query), self._group_with_cls(key), self._group_with_cls(value)
        )
        ordered = attended.transpose(1, 2) if self.along_time else attended
        return ordered.flatten(1, 2).unflatten(0, (-1, self.heads))

    def _group(self, patches: Tensor) -> Tensor:
        """[N, heads, 1568, dim] to [N * heads, groups, patches of one, dim]: fused kernels take four dimensions."""
        grid = patches.unflatten(2, (_TIMES, _PLACES)).flatten(0, 1)
        return grid.transpose(1, 2) if self.along_time else grid

    def _group_with_cls(self, tokens: Tensor) -> Tensor:
        groups = self._group(tokens[:, :, 1:])
        cls = tokens[:, :, :1].flatten(0, 1).unsqueeze(1).expand(-1, groups.shape[1], -1, -1)
        return torch.cat([cls, groups], dim=2)


class _Block(nn.Module):
    """Pre-norm attention along time, attention in space and feed-forward, each added to the residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.time_attn = _DividedAttention(width, heads, along="time")
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.space_attn = _DividedAttention(width, heads, along="space")
        self.norm3 = nn.LayerNorm(width, eps=1e-6)
        self.ff = FeedForward(width, activation_fn="gelu")

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.time_attn(self.norm1(hidden))
        hidden = hidden + self.space_attn(self.norm2(hidden))
        return hidden + self.ff(self.norm3(hidden))


class Synchformer(DiffusersModel):
    """The video encoder of Synchformer (docs/model.md, "Synchformer"): eight features a segment of 16 frames.

    Args:
        width: of the tokens. Default 768.
        depth: number of blocks. Default 12.
        heads: attention heads; `width` is a multiple of it. Default 12.
        features: width of a feature. Where it is not `width`, as in the tiny checkpoint, a linear layer
            that the published model does not have comes last. Default 768.
    """

    @register_to_config
    def __init__(self, width: int = 768, depth: int = 12, heads: int = 12, features: int = 768) -> None:
        super().__init__()
        self.patch_embed = nn.Conv3d(3, width, kernel_size=_PATCH, stride=_PATCH)
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + _PLACES, width) * 0.02)
        self.temp_embed = nn.Parameter(torch.randn(1, _TIMES, width) * 0.02)
        self.transformer_blocks = nn.ModuleList(_Block(width, heads) for _ in range(depth))
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.pool_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.pool = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        self.proj_out = nn.Identity() if features == width else nn.Linear(width, features)

    def forward(self, segments: Tensor) -> Tensor:
        """Encode segments [B, S, 16, 3, 224, 224], RGB in ±1, to features [B, S * 8, 768]."""
        parts = segments.flatten(0, 1).split(_SEGMENTS_AT_ONCE)
        features = torch.cat([self._encode(part.to(self.dtype)) for part in parts])
        return features.unflatten(0, segments.shape[:2]).flatten(1, 2)

    def _encode(self, segments: Tensor) -> Tensor:
        """[N, 16, 3, 224, 224] to [N, 8, 768]."""
        hidden = self._embed(segments)
        for block in self.transformer_blocks:
            hidden = block(hidden)
        return self.proj_out(self._pool_each_time(self.norm_out(hidden[:, 1:])))

    def _embed(self, segments: Tensor) -> Tensor:
        """Tokens [N, 1 + 1568, width] with their positions."""
        patches = self.patch_embed(segments.transpose(1, 2)).flatten(2).mT.unflatten(1, (_TIMES, _PLACES))
        patches = patches + self.pos_embed[:, None, 1:] + self.temp_embed[:, :, None]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(segments), -1, -1)
        return torch.cat([cls, patches.flatten(1, 2)], dim=1)

    def _pool_each_time(self, patches: Tensor) -> Tensor:
        """[N, 1568, width] to one token a time, [N, 8, width]."""
        places = patches.unflatten(1, (_TIMES, _PLACES)).flatten(0, 1)
        tokens = torch.cat([self.pool_token.expand(len(places), -1, -1), places], dim=1)
        return self.pool(tokens)[:, 0].unflatten(0, (-1, _TIMES))
