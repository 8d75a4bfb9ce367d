"""Speech text encoder: F5-TTS's character encoder, projected to context tokens. docs/model.md, "Speech text"."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnifleet_worker.models.audio_omni.conditioners import rms_norm
from omnifleet_worker.models.diffusers_model import DiffusersModel, register_to_config


def sinusoid_table(positions: int, features: int) -> Tensor:
    """[positions, features]: the cosines of position / 10000^(2i/features), then the sines."""
    frequencies = 1 / 10_000 ** (torch.arange(0, features, 2, dtype=torch.float32) / features)
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), frequencies)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class GlobalResponseNorm(nn.Module):
    """GRN of ConvNeXt-V2 (arXiv 2301.00808) over the positions of [positions, features]."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, features))
        self.beta = nn.Parameter(torch.zeros(1, 1, features))

    def forward(self, hidden: Tensor) -> Tensor:
        response = hidden.norm(dim=-2, keepdim=True)
        relative = response / (response.mean(dim=-1, keepdim=True) + 1e-6)
        return self.gamma * (hidden * relative) + self.beta + hidden


class ConvNeXtBlock(nn.Module):
    """ConvNeXt-V2 block over [1, positions, features]."""

    def __init__(self, features: int, inner_features: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(features, features, kernel_size=7, padding=3, groups=features)
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.pwconv1 = nn.Linear(features, inner_features)
        self.grn = GlobalResponseNorm(inner_features)
        self.pwconv2 = nn.Linear(inner_features, features)

    def forward(self, hidden: Tensor) -> Tensor:
        spread = self.norm(self.dwconv(hidden.mT).mT)
        return hidden + self.pwconv2(self.grn(functional.gelu(self.pwconv1(spread))))


class SpeechEncoder(DiffusersModel):
    """What is to be said, as 256 context tokens.

    Args:
        embeddings: rows of the embedding: the vocabulary's and the filler's, which is row 0.
        features: of the embedding and the blocks.
        depth: number of ConvNeXt-V2 blocks.
        positions: length that every text is cut or padded to.
        tokens: context tokens put out.
        conditioning_features: features of each.
    """

    @register_to_config
    def __init__(
        self,
        embeddings: int = 2546,
        features: int = 512,
        depth: int = 4,
        positions: int = 2584,
        tokens: int = 256,
        conditioning_features: int = 768,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(embeddings, features)
        self.blocks = nn.ModuleList(ConvNeXtBlock(features, 2 * features) for _ in range(depth))
        self.feature_projection = nn.Linear(features, conditioning_features)
        self.position_projection = nn.Linear(positions, tokens)
        self.empty_features = nn.Parameter(torch.zeros(1, tokens, conditioning_features))
        self.register_buffer("position_table", sinusoid_table(positions, features), persistent=False)

    def forward(self, ids: Sequence[int] | None) -> Tensor:
        """Encode vocabulary ids (0-based, of `SpeechTokenizer.encode`) to [256, 768] float32.

        Ids past the 2,584th are ignored. None, for a task without speech, gives the learned empty feature.
        """
        if ids is None:
            return self.empty_features[0]
        rows = self._pad(ids)
        hidden = self._encode_text(rows, spoken=(rows > 0)[None, :, None])
        hidden = self.feature_projection(rms_norm(hidden))
        return rms_norm(self.position_projection(hidden.mT).mT)[0]

    def _pad(self, ids: Sequence[int]) -> Tensor:
        """Embedding rows [2584]: ids plus one, since row 0 is the filler, then fillers."""
        rows = torch.zeros(self.config.positions, dtype=torch.long)
        kept = torch.tensor(ids[: self.config.positions], dtype=torch.long)
        rows[: len(kept)] = kept + 1
        return rows.to(self.device)

    def _encode_text(self, rows: Tensor, spoken: Tensor) -> Tensor:
        hidden = (self.embedding(rows) + self.position_table)[None] * spoken
        for block in self.blocks:
            hidden = block(hidden) * spoken
        return hidden
