"""The thinker's ears: recordings to embeddings, all of a chat's in one pass.

The modules are transformers' audio tower; it attends to one chunk after the other, and asks the device for their
lengths in every layer. Here chunks are rows of one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

from ...streams import to_device


def token_count(frames: int) -> int:
    """Embeddings that are made of so many frames of mel: a convolution of stride 2, then pairs."""
    return ((frames - 1) // 2 + 1) // 2


def encode_recordings(tower: Qwen2_5OmniAudioEncoder, mels: Tensor, frames: Sequence[int]) -> Tensor:
    """Embeddings [tokens, output size] of recordings, one behind the other.

    Args:
        tower: the encoder.
        mels: [n, bands, frames], zeros behind the end of the shorter ones.
        frames: of each recording.
    """
    chunk = 2 * tower.n_window
    counts = [-(-count // chunk) for count in frames]
    lengths = [min(chunk, count - start) for count in frames for start in range(0, count, chunk)]
    chunks = functional.pad(mels, (0, max(counts) * chunk - mels.shape[2])).unflatten(2, (-1, chunk))
    rows = torch.cat([mel[:, :count].transpose(0, 1) for mel, count in zip(chunks, counts, strict=True)])
    hidden = _encode_chunks(tower, rows, to_device(torch.tensor(lengths), mels.device))
    pairs = to_device(torch.tensor(_pairs(frames, counts, hidden.shape[1])), mels.device)
    hidden = hidden.flatten(0, 1)
    heard: Tensor = tower.proj(tower.ln_post((hidden[pairs] + hidden[pairs + 1]) / 2))
    return heard


def _encode_chunks(tower: Qwen2_5OmniAudioEncoder, chunks: Tensor, lengths: Tensor) -> Tensor:
    """Hidden states [n, frames / 2, model size] of chunks [n, bands, frames], of which so many frames count."""
    heard = torch.arange(chunks.shape[2], device=chunks.device) < lengths[:, None]
    hidden = functional.gelu(tower.conv1(chunks.to(tower.dtype))) * heard[:, None]
    hidden = functional.gelu(tower.conv2(hidden)).transpose(1, 2)
    places = hidden.shape[1]
    hidden = hidden + tower.positional_embedding(places).to(hidden.dtype)
    mask = torch.arange(places, device=chunks.device) < ((lengths - 1) // 2 + 1)[:, None]
    for layer in tower.layers:
        hidden = _encode_layer(layer, hidden, mask[:, None, None])
    return hidden


def _encode_layer(layer: Any, hidden: Tensor, mask: Tensor) -> Tensor:
    attention, normed = layer.self_attn, layer.self_attn_layer_norm(hidden)
    query, key, value = (
        project(normed).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    hidden = hidden + attention.out_proj(attended.transpose(1, 2).flatten(2))
    fed = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))
    encoded: Tensor = hidden + layer.fc2(fed)
    return encoded


def _pairs(frames: Sequence[int], counts: Sequence[int], places: int) -> list[int]:
    """First of the two places that make each embedding; a recording's chunks but the last are full."""
    pairs, start = [], 0
    for count, chunks in zip(frames, counts, strict=True):
        pairs += [start + 2 * number for number in range(token_count(count))]
        start += chunks * places
    return pairs
