"""Causal attention of sequences packed one behind the other, their keys and values in a cache. Nothing is padded on a
GPU: flash attention reads every sequence's own span of the cache, split over the device where few sequences are long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Attention = Callable[[Tensor, Tensor, "PackedSequences"], Tensor]
"""(queries [rows, heads, head size], a layer's cache, sequences) → [rows, heads, head size]."""


@dataclass(frozen=True)
class PackedSequences:
    """Which rows belong to which sequence. All on the device, int32, so that a captured graph reads new values.

    Attributes:
        starts: [n + 1], of each sequence's first key in the cache; the last entry counts for nothing.
        lengths: [n], its keys; those of its own rows are the last of them.
        offsets: [n + 1], row at which each sequence begins, and the end.
        most_rows: of any sequence, at most.
        most_keys: of any sequence, at most.
    """

    starts: Tensor
    lengths: Tensor
    offsets: Tensor
    most_rows: int
    most_keys: int


def attention_for(device: torch.device, dtype: torch.dtype) -> Attention:
    """Flash attention where the device has it for the dtype (Ampere and later, 16 bits), else padded attention."""
    flash = device.type == "cuda" and dtype.itemsize == 2 and torch.cuda.get_device_capability(device) >= (8, 0)
    return attend_flash if flash else attend_padded


def attend_flash(query: Tensor, cache: Tensor, packed: PackedSequences) -> Tensor:
    """Attention by the kernel beneath `torch.nn.attention.varlen`, which takes no lengths apart from the offsets."""
    keys, values = cache.unbind(1)
    attended: Tensor = torch.ops.aten._flash_attention_forward(
        query,
        keys,
        values,
        packed.offsets,
        packed.starts,  # with `seqused_k`, lengths are not taken from the distances between them
        packed.most_rows,
        packed.most_keys,
        0.0,
        packed.most_rows > 1,
        return_debug_mask=False,
        seqused_k=packed.lengths,
    )[0]
    return attended


def attend_padded(query: Tensor, cache: Tensor, packed: PackedSequences) -> Tensor:
    """The same by any device's own attention, over copies of the sequences that are padded to the longest."""
    device, counts = query.device, packed.offsets.diff()[:, None]
    places = torch.arange(packed.most_rows, device=device)
    columns = torch.arange(packed.most_keys, device=device)
    rows = (packed.offsets[:-1, None] + places).clamp(max=len(query) - 1)
    last = (packed.lengths[:, None] - counts + places).clamp(min=0)
    mask = columns <= last.minimum(packed.lengths[:, None] - 1)[..., None]
    keys, values = cache[packed.starts[:-1, None] + columns.minimum(packed.lengths[:, None] - 1)].unbind(2)
    groups = query.shape[1] // keys.shape[2]
    attended = functional.scaled_dot_product_attention(
        query[rows].transpose(1, 2),
        keys.repeat_interleave(groups, 2).transpose(1, 2),
        values.repeat_interleave(groups, 2).transpose(1, 2),
        attn_mask=mask[:, None],
    ).transpose(1, 2)
    every = torch.arange(len(query), device=device, dtype=torch.int32)
    owners = torch.searchsorted(packed.offsets, every, right=True).clamp(max=len(packed.lengths)) - 1
    return attended[owners, (every - packed.offsets[owners]).clamp(max=packed.most_rows - 1)]
