"""Low-rank parts (LoRA, arXiv 2106.09685) beside linear layers, those of another adapter for each row of a batch.

No weight is merged and nothing is compiled for an adapter: what the adapters of a batch add is gathered by row, from
tensors whose sizes are the only thing that a compiled step knows of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from omnifleet_worker.models.streams import to_device

STEP_LAYERS = ("attn1.to_qkv", "attn1.to_out", "attn2.to_q", "attn2.to_out", "ff.net.0.proj", "ff.net.2")
"""The linear layers of a block that every step runs."""
CONTEXT_LAYER = "attn2.to_kv"
"""The one that is run once a request."""
LAYERS = (*STEP_LAYERS, CONTEXT_LAYER)
"""All that an adapter may have parts for."""
RANK_STEP = 8
"""Ranks of a batch are padded to a multiple of it: tensor cores multiply nothing narrower."""
LEAST_ADAPTERS = 2
"""Places for adapters in a batch at least: the compiler takes a dimension of one for a case of its own."""


class LowRank(NamedTuple):
    """What is added to a linear layer: `up @ down`. In front of these dimensions may be others."""

    down: Tensor
    """[rank, in]."""
    up: Tensor
    """[out, rank]."""


@dataclass(frozen=True, eq=False)
class AdapterWeights:
    """An adapter on the device.

    Attributes:
        parts: for each of `LAYERS`, those of all blocks: down [blocks, rank, in], up [blocks, out, rank], which is
            multiplied by alpha / rank. A layer that is not adapted has rank 0.
    """

    parts: Mapping[str, LowRank]

    @classmethod
    def zeros(cls, sizes: Mapping[str, tuple[int, int]], blocks: int, rank: int, like: Tensor) -> Self:
        """Make an adapter that changes nothing.

        Args:
            sizes: features out of and into each layer.
            blocks: of the transformer.
            rank: of every layer.
            like: has the dtype and the device.
        """
        return cls(
            {
                name: LowRank(like.new_zeros(blocks, rank, inward), like.new_zeros(blocks, outward, rank))
                for name, (outward, inward) in sizes.items()
            }
        )

    @property
    def rank(self) -> int:
        """The largest of its layers."""
        return max(part.down.shape[1] for part in self.parts.values())

    @property
    def nbytes(self) -> int:
        """Bytes of all its parts."""
        return sum(part.down.nbytes + part.up.nbytes for part in self.parts.values())


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter as one request uses it. Two are equal where they make the same of it."""

    sha256: str
    """Of the adapter's manifest."""
    scale: float
    """How strongly it is applied; 1 is as it was trained."""
    weights: AdapterWeights = field(compare=False, repr=False)

    def context_parts(self) -> list[LowRank]:
        """What it adds to each block's projection of the context."""
        down, up = self.weights.parts[CONTEXT_LAYER]
        return [LowRank(*part) for part in zip(down, up * self.scale, strict=True)]


class BlockAdapters(NamedTuple):
    """What a block adds to its layers for each of R rows, from the parts of K adapters."""

    parts: dict[str, LowRank]
    """By the names of `STEP_LAYERS`: down [K, rank, in], up [K, out, rank]."""
    rows: Tensor
    """[R], which adapter each row has."""
    scale: Tensor
    """[R, 1, 1]; 0 for rows that have none."""


@dataclass(frozen=True)
class AdapterBatch:
    """The adapters of B requests, each of K different ones once.

    Attributes:
        parts: by the names of `STEP_LAYERS`: down [blocks, K, rank, in], up [blocks, K, out, rank].
        rows: [B], which adapter each request has; any where it has none.
        scale: [B, 1, 1]; 0 where a request has none.
    """

    parts: Mapping[str, LowRank]
    rows: Tensor
    scale: Tensor

    @classmethod
    def of(cls, adapters: Sequence[AppliedAdapter | None]) -> Self | None:
        """Put the adapters of a batch side by side, padded to the largest rank; None where there are none at all."""
        known = {one.sha256: one.weights for one in adapters if one is not None}
        if not known:
            return None
        places = {sha256: place for place, sha256 in enumerate(known)}
        rank = -(-max(weights.rank for weights in known.values()) // RANK_STEP) * RANK_STEP
        parts = {name: _stack([weights.parts[name] for weights in known.values()], rank) for name in STEP_LAYERS}
        like = parts[STEP_LAYERS[0]].up
        rows = torch.tensor([0 if one is None else places[one.sha256] for one in adapters])
        scale = torch.tensor([0.0 if one is None else one.scale for one in adapters], dtype=like.dtype)
        return cls(parts, to_device(rows, like.device), to_device(scale, like.device)[:, None, None])

    def of_blocks(self, double: Callable[[Tensor], Tensor]) -> list[BlockAdapters]:
        """Give each block its parts.

        Args:
            double: puts the unconditional rows behind the conditional ones.
        """
        rows, scale = double(self.rows), double(self.scale)
        unbound = {name: (part.down.unbind(), part.up.unbind()) for name, part in self.parts.items()}
        return [
            BlockAdapters(
                {name: LowRank(downs[block], ups[block]) for name, (downs, ups) in unbound.items()}, rows, scale
            )
            for block in range(len(self.parts[STEP_LAYERS[0]].down))
        ]


def adapted(linear: nn.Module, hidden: Tensor, adapters: BlockAdapters | None, layer: str) -> Tensor:
    """Run a linear layer, and add to each row what its adapter has for it.

    Args:
        linear: the layer.
        hidden: [R, sequence, in]; the first R rows that `adapters` tells of.
        adapters: None where no row has one.
        layer: name of the layer, of `STEP_LAYERS`.
    """
    projected: Tensor = linear(hidden)
    if adapters is None:
        return projected
    part, count = adapters.parts[layer], hidden.shape[0]
    rows, scale = adapters.rows[:count], adapters.scale[:count]
    inner = torch.bmm(hidden, part.down[rows].mT) * scale
    return torch.baddbmm(projected, inner, part.up[rows].mT)


def _stack(parts: Sequence[LowRank], rank: int) -> LowRank:
    """Parts [blocks, rank, in] and [blocks, out, rank] of several adapters as [blocks, K, rank, in] and so on."""
    blocks, _, inward = parts[0].down.shape
    places = max(LEAST_ADAPTERS, len(parts))
    down = parts[0].down.new_zeros(blocks, places, rank, inward)
    up = parts[0].up.new_zeros(blocks, places, parts[0].up.shape[1], rank)
    for place, part in enumerate(parts):
        own = part.down.shape[1]
        down[:, place, :own], up[:, place, :, :own] = part.down, part.up
    return LowRank(down, up)
