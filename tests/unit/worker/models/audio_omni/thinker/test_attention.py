"""Attention over packed sequences is the attention of each on its own."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_worker.models.audio_omni.thinker.attention import PackedSequences, attend_padded, attention_for
from torch import Tensor
from torch.nn import functional

HEADS, SHARED, SIZE = 4, 2, 8
Sequence = tuple[int, int]
"""Keys, and the rows that are the last of them."""


def alone(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """[rows, heads, size] of one sequence: each row sees the keys up to its own."""
    rows, count = len(query), len(keys)
    mask = torch.ones(rows, count, dtype=torch.bool).tril(count - rows)
    keys, values = (one.repeat_interleave(HEADS // SHARED, 1).transpose(0, 1) for one in (keys, values))
    return functional.scaled_dot_product_attention(query.transpose(0, 1), keys, values, attn_mask=mask).transpose(0, 1)


def pack(sequences: list[Sequence], starts: list[int], most_rows: int, most_keys: int) -> PackedSequences:
    offsets = torch.tensor([0, *(rows for _, rows in sequences)]).cumsum(0)
    return PackedSequences(
        torch.tensor([*starts, 0], dtype=torch.int32),
        torch.tensor([keys for keys, _ in sequences], dtype=torch.int32),
        offsets.int(),
        most_rows,
        most_keys,
    )


@settings(deadline=None)
@given(
    sequences=st.lists(
        st.integers(1, 12).flatmap(lambda keys: st.tuples(st.just(keys), st.integers(1, keys))), min_size=1
    ),
    filling=st.integers(0, 3),
    room=st.integers(0, 5),
    data=st.data(),
)
def test_padded_attention(sequences: list[Sequence], filling: int, room: int, data: st.DataObject) -> None:
    torch.manual_seed(0)
    order = data.draw(st.permutations(range(len(sequences))))
    starts = [13 * place for place in order]
    cache = torch.randn(13 * len(sequences), 2, SHARED, SIZE)
    rows = sum(rows for _, rows in sequences)
    query = torch.randn(rows + filling, HEADS, SIZE)
    most_rows = max(rows for _, rows in sequences) + room
    packed = pack(sequences, starts, most_rows, max(keys for keys, _ in sequences) + room)

    attended = attend_padded(query, cache, packed)

    assert attended.shape == query.shape
    end = 0
    for (keys, count), start in zip(sequences, starts, strict=True):
        end += count
        own = cache[start : start + keys]
        assert torch.allclose(
            attended[end - count : end], alone(query[end - count : end], own[:, 0], own[:, 1]), atol=1e-6
        )


def test_what_memory_holds_behind_a_sequence_changes_nothing() -> None:
    cache = torch.randn(10, 2, SHARED, SIZE)
    query, packed = torch.randn(1, HEADS, SIZE), pack([(4, 1)], [2], 1, 8)
    expected = attend_padded(query, cache, packed)

    cache[6:] = float("nan")

    assert torch.equal(attend_padded(query, cache, packed), expected)


def test_a_cpu_pads() -> None:
    assert attention_for(torch.device("cpu"), torch.bfloat16) is attend_padded
