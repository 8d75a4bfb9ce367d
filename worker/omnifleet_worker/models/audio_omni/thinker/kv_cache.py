"""Memory for the keys and values of all answers, allocated once; an answer has its part of it from first to last."""

from __future__ import annotations

import threading
from bisect import insort
from typing import NamedTuple

import torch
from omnifleet_shared.errors import OutOfMemory
from transformers import Qwen2_5OmniTextConfig

SPARE_TOKEN = 0
"""Where rows that only fill a batch up keep their key and value."""


class Span(NamedTuple):
    """Consecutive tokens of the cache."""

    start: int
    tokens: int

    @property
    def end(self) -> int:
        """One past the last token."""
        return self.start + self.tokens


class KVCache:
    """Keys and values of every layer, for so many tokens of any answers. Allocating and freeing is thread-safe.

    Args:
        config: of the text model.
        tokens: that fit, of all answers together.
        device: where they are kept.
        dtype: of the model.
    """

    def __init__(
        self, config: Qwen2_5OmniTextConfig, tokens: int, device: torch.device | str, dtype: torch.dtype
    ) -> None:
        shape = (tokens + 1, 2, config.num_key_value_heads, config.hidden_size // config.num_attention_heads)
        # Zeros: attention multiplies what it masks by nought, which is no number where memory holds none.
        self.layers = tuple(torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers))
        """Of each layer [tokens + 1, 2 (key, value), heads, head size]; the first token is spare."""
        self.device = self.layers[0].device
        self.tokens = tokens
        self._free = [Span(SPARE_TOKEN + 1, tokens)]
        self._lock = threading.Lock()

    @property
    def free_tokens(self) -> int:
        """Tokens that no answer has."""
        with self._lock:
            return sum(span.tokens for span in self._free)

    def allocate(self, tokens: int) -> Span:
        """Take a span of so many tokens, from the smallest gap that has them.

        Raises:
            OutOfMemory: no gap is large enough, as long as other answers have theirs.
        """
        with self._lock:
            gap = min(
                (span for span in self._free if span.tokens >= tokens), key=lambda span: span.tokens, default=None
            )
            if gap is None:
                problem = f"the cache of {self.tokens} tokens has no room for an answer of {tokens} now"
                raise OutOfMemory(problem, None, "It is tried again")
            self._free.remove(gap)
            if gap.tokens > tokens:
                insort(self._free, Span(gap.start + tokens, gap.tokens - tokens))
            return Span(gap.start, tokens)

    def free(self, span: Span) -> None:
        """Give a span back; free neighbours become one."""
        with self._lock:
            insort(self._free, span)
            joined: list[Span] = []
            for gap in self._free:
                if joined and joined[-1].end == gap.start:
                    gap = Span(joined[-1].start, joined.pop().tokens + gap.tokens)
                joined.append(gap)
            self._free = joined
