"""The thinker's text layers on packed rows: prompts and answers, many sequences in one forward without padding.

The modules are transformers'; how their rows meet in attention is not. Its static cache has one length for all rows of
a batch, so answers of different lengths cannot share it; its `generate` compiles and drives one batch from start to
end; its continuous batching reads token ids alone, and this model reads sounds, frames and three-dimensional positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5OmniThinkerForConditionalGeneration
from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniDecoderLayer, apply_rotary_pos_emb

from ...cuda_graphs import CudaGraphs
from .attention import PackedSequences, attention_for
from .kv_cache import SPARE_TOKEN, KVCache

FEWEST_ROWS, GRAPHED_ROWS = 32, 1024
"""Rows of a prompt that graphs are captured for, with all powers of two between. More rows, or several prompts, keep
the device busy for about as long as the host needs to launch their kernels one by one."""
FEWEST_KEYS, KEYS_GROWTH = 512, 4
"""Bounds of an answer's length that graphs are captured for: so many keys, so many times as many, and so on."""
SPARE_ROW = (0, 0, SPARE_TOKEN, SPARE_TOKEN, 1)
"""What `TextModel.decode` takes for an answer that is none."""


class TextModel:
    """The text layers, embeddings and head of one thinker on its device. A CPU does the same without graphs.

    Calls that use the cache follow one another on one thread, `encode` may be called beside them on another.

    Args:
        thinker: the model.
        cache: keys and values of its answers.
    """

    def __init__(self, thinker: Qwen2_5OmniThinkerForConditionalGeneration, cache: KVCache) -> None:
        self._text = thinker.model.language_model
        self._head = thinker.lm_head
        self.vocabulary: int = thinker.lm_head.out_features
        """Tokens that there are logits of."""
        self._cache = cache
        self._attend = attention_for(thinker.device, thinker.dtype)
        self._project: Callable[..., Any] = _project
        self._feed_forward: Callable[..., Any] = _feed_forward
        self._graphs = self._new_graphs()

    def compile(self, backend: str | Callable[..., Any]) -> None:
        """Compile the layers, once for one row and once for several, whatever their number and the layer."""
        self._project = torch.compile(_project, dynamic=True, fullgraph=True, backend=backend)
        self._feed_forward = torch.compile(_feed_forward, dynamic=True, fullgraph=True, backend=backend)
        self._graphs = self._new_graphs()

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings [n, hidden size] of tokens [n]."""
        embeds: Tensor = self._text.embed_tokens(ids)
        return embeds

    def decode(self, rows: Tensor, most_keys: int) -> Tensor:
        """Logits [n, vocabulary] after one more token of n answers. Use them before the next call.

        Args:
            rows: [5, n], int64 on the device: token, position, where its key goes in the cache, and of the answer's
                keys the first and the number, this one included.
            most_keys: of any answer, at most.
        """
        logits: Tensor = self._graphs["_decode"](rows, most_keys=most_keys)
        return logits

    def read(self, embeds: Tensor, places: Tensor, spans: Tensor, most_rows: int, most_keys: int) -> Tensor:
        """Logits [n, vocabulary] after the last rows of n prompts, or parts of prompts. Use them before the next call.

        Args:
            embeds: [rows, hidden size], the prompts one behind the other; a single one may be filled up behind its end.
            places: [4, rows], int64: positions in time, height and width, and where the key goes in the cache.
            spans: [3, n + 1], int64: of each prompt's keys the first and the number, and the row at which it begins;
                the last column holds the end of the rows alone.
            most_rows: of any prompt, at most.
            most_keys: of any prompt, at most.
        """
        read = self._graphs["_read"] if is_graphed(spans.shape[1] - 1, most_keys) else self._read
        logits: Tensor = read(embeds, places, spans, most_rows=most_rows, most_keys=most_keys)
        return logits

    def encode(self, embeds: Tensor, positions: Tensor) -> Tensor:
        """Hidden states [rows, hidden size] of one prompt that go into the last layer. Use them before the next call.

        Args:
            embeds: [rows, hidden size].
            positions: [3, rows].
        """
        encode = self._graphs["_encode"] if is_graphed(1, len(embeds)) else self._encode
        hidden: Tensor = encode(embeds, positions)
        return hidden

    def capture(self, answers: int) -> None:
        """Capture the usual calls before the first of them: prompts of one chat, and up to so many answers at once."""
        if self._cache.device.type != "cuda":
            return
        for rows in powers_of_two(FEWEST_ROWS, GRAPHED_ROWS):
            embeds = self.embed(torch.zeros(rows, dtype=torch.long, device=self._cache.device))
            places = torch.full((4, rows), SPARE_TOKEN, device=self._cache.device)
            self.encode(embeds, places[:3])
            self.read(embeds, places, torch.tensor([[0, 0], [1, 1], [0, 1]], device=self._cache.device), rows, rows)
        for size in powers_of_two(1, power_of_two(answers)):
            spare = torch.tensor([SPARE_ROW] * size, device=self._cache.device).T.contiguous()
            for most_keys in (FEWEST_KEYS, FEWEST_KEYS * KEYS_GROWTH):
                self.decode(spare, min(most_keys, self._cache.tokens))

    def _new_graphs(self) -> dict[str, CudaGraphs]:
        return {call: CudaGraphs(getattr(self, call), self._cache.device) for call in ("_decode", "_read", "_encode")}

    def _decode(self, rows: Tensor, most_keys: int) -> Tensor:
        tokens, positions, writes = rows[:3]
        starts, lengths = rows[3:].int()
        offsets = torch.arange(rows.shape[1] + 1, dtype=torch.int32, device=rows.device)
        packed = PackedSequences(functional.pad(starts, (0, 1)), lengths, offsets, 1, most_keys)
        return self._logits(self._forward(self.embed(tokens), positions.expand(3, -1), writes, packed))

    def _read(self, embeds: Tensor, places: Tensor, spans: Tensor, most_rows: int, most_keys: int) -> Tensor:
        starts, lengths, offsets = spans.int()
        packed = PackedSequences(starts, lengths[:-1], offsets, most_rows, most_keys)
        hidden = self._forward(embeds, places[:3], places[3], packed)
        # The head for the last rows alone: over a long prompt's every row it would take gigabytes.
        return self._logits(hidden[spans[2, 1:] - 1])

    def _encode(self, embeds: Tensor, positions: Tensor) -> Tensor:
        hidden, (cos, sin) = embeds, self._rotary(embeds, positions)
        for layer in self._text.layers[:-1]:
            query, cached = self._project(layer, hidden, cos, sin)
            key, value = cached.unbind(1)
            query, key, value = (heads.transpose(0, 1)[None] for heads in (query, key, value))
            attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
            hidden = self._feed_forward(layer, hidden, attended[0].transpose(0, 1).flatten(1))
        return hidden

    def _forward(self, hidden: Tensor, positions: Tensor, writes: Tensor, packed: PackedSequences) -> Tensor:
        cos, sin = self._rotary(hidden, positions)
        for layer, cache in zip(self._text.layers, self._cache.layers, strict=True):
            query, cached = self._project(layer, hidden, cos, sin)
            # Outside of what is compiled: the compiler might copy the whole cache to change a row of it.
            cache.index_copy_(0, writes, cached)
            hidden = self._feed_forward(layer, hidden, self._attend(query, cache, packed).flatten(1))
        return hidden

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._head(self._text.norm(hidden))
        return logits

    def _rotary(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self._text.rotary_emb(hidden, positions[:, None])
        return cos[0], sin[0]


def _project(layer: Qwen2_5OmniDecoderLayer, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Queries [rows, heads, head size], and keys and values [rows, 2, heads, head size] as the cache holds them."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    query, key, value = (
        project(normed).unflatten(-1, (-1, attention.head_dim))
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query, key = apply_rotary_pos_emb(query, key, cos, sin)
    return query, torch.stack([key, value], 1)


def _feed_forward(layer: Qwen2_5OmniDecoderLayer, hidden: Tensor, attended: Tensor) -> Tensor:
    """What the layer makes of its input and of what its attention found, both [rows, hidden size]."""
    hidden = hidden + layer.self_attn.o_proj(attended)
    fed: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return fed


def is_graphed(prompts: int, keys: int) -> bool:
    """Whether so many prompts are read, of which the longest has so many keys, by a graph; that one is to be filled up
    to `filled_rows`."""
    return prompts == 1 and keys <= GRAPHED_ROWS


def filled_rows(rows: int) -> int:
    """To how many rows a prompt is filled up that is read or encoded by a graph."""
    return max(FEWEST_ROWS, power_of_two(rows))


def power_of_two(number: int) -> int:
    """The next one that is not less."""
    return 1 << (number - 1).bit_length()


def powers_of_two(first: int, last: int) -> Iterator[int]:
    """Those between two of them, both included."""
    while first <= last:
        yield first
        first *= 2
