"""Memory of answers: no token belongs to two of them, and what all have given back is whole again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omnifleet_shared.errors import OutOfMemory
from omnifleet_worker.models.audio_omni.thinker.kv_cache import SPARE_TOKEN, KVCache, Span


def cache_of(tokens: int) -> KVCache:
    config: Any = SimpleNamespace(num_hidden_layers=2, num_key_value_heads=2, hidden_size=16, num_attention_heads=4)
    return KVCache(config, tokens, "cpu", torch.float32)


def test_every_layer_has_keys_and_values_of_all_tokens_and_a_spare_one() -> None:
    cache = cache_of(10)

    assert [layer.shape for layer in cache.layers] == [(11, 2, 2, 4)] * 2
    assert cache.allocate(10) == Span(SPARE_TOKEN + 1, 10)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=60))
def test_spans_never_overlap_and_join_again_once_they_are_free(orders: list[tuple[bool, int]]) -> None:
    cache, held = cache_of(100), list[Span]()
    for is_freed, number in orders:
        if is_freed and held:
            cache.free(held.pop(number % len(held)))
            continue
        try:
            held.append(cache.allocate(number))
        except OutOfMemory:
            assert cache.free_tokens < 100
        taken = [token for span in held for token in range(span.start, span.end)]
        assert len(taken) == len(set(taken)) == 100 - cache.free_tokens
        assert all(SPARE_TOKEN < token <= 100 for token in taken)

    for span in held:
        cache.free(span)

    assert cache.allocate(100).tokens == 100


def test_the_smallest_gap_that_suffices_is_taken() -> None:
    cache = cache_of(100)
    first, _, third, _ = (cache.allocate(tokens) for tokens in (30, 5, 10, 5))
    cache.free(first)
    cache.free(third)

    assert cache.allocate(9).start == third.start


def test_where_no_gap_suffices_the_error_says_so() -> None:
    cache = cache_of(100)
    cache.allocate(60)

    with pytest.raises(OutOfMemory, match="cache of 100 tokens has no room for an answer of 50 now"):
        cache.allocate(50)
