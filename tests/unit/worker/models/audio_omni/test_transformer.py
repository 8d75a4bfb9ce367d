"""The transformer in a batch: requests do not disturb each other, and guidance costs only who asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer, CrossAttentionCache
from torch import Tensor

LENGTHS = [300, 277, 256]
TIMES = torch.tensor([0.9, 0.5, 0.1])
GUIDANCE = torch.tensor([7.0, 1.0, 3.0])


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def transformer() -> AudioOmniTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return AudioOmniTransformer(width=128, depth=2, heads=2).eval()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def contexts(transformer: AudioOmniTransformer, lengths: list[int]) -> list[CrossAttentionCache]:
    return [transformer.encode_context(normal(length, length, 768)) for length in lengths]


def velocities(transformer: AudioOmniTransformer, rows: list[int], guidance: Tensor = GUIDANCE) -> Tensor:
    """Of the requests in `rows`, as one batch."""
    latents, tokens = normal(1, 3, 64, 236), normal(2, 3, 364, 768)
    batch = transformer.collate_context(contexts(transformer, [LENGTHS[row] for row in rows]))
    global_embeds = torch.stack([transformer.encode_global(tokens[row]) for row in rows])
    return transformer(latents[rows], TIMES[rows], batch, global_embeds, guidance[rows])


def close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 1e-5 * wanted.abs().max())


def test_a_batch_equals_each_request_alone(transformer: AudioOmniTransformer) -> None:
    together = velocities(transformer, [0, 1, 2])
    for row in range(3):
        assert close(together[[row]], velocities(transformer, [row]))


def test_the_order_in_a_batch_changes_nothing(transformer: AudioOmniTransformer) -> None:
    assert close(velocities(transformer, [2, 0, 1]), velocities(transformer, [0, 1, 2])[[2, 0, 1]])


def test_a_context_alone_needs_no_mask(transformer: AudioOmniTransformer) -> None:
    assert transformer.collate_context(contexts(transformer, [5])).mask is None
    mask = transformer.collate_context(contexts(transformer, [5, 3])).mask
    assert mask is not None
    assert mask.flatten(1).tolist() == [[True] * 5, [True] * 3 + [False] * 2]


def test_guidance_one_runs_the_conditional_rows_alone(
    transformer: AudioOmniTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[int] = []
    first = transformer.transformer_blocks[0]
    run = first.forward
    monkeypatch.setattr(first, "forward", lambda hidden, *rest: rows.append(len(hidden)) or run(hidden, *rest))
    unguided = velocities(transformer, [0, 1, 2], torch.ones(3))
    velocities(transformer, [0, 1, 2])
    velocities(transformer, [0, 1, 2], torch.tensor([7.0, 7.0, 7.0]))
    assert rows == [3, 5, 6]
    assert close(unguided[[1]], velocities(transformer, [1]))


def test_guidance_extrapolates_from_the_unconditional_velocity(transformer: AudioOmniTransformer) -> None:
    conditional = velocities(transformer, [0], torch.tensor([1.0]))
    unconditional = velocities(transformer, [0], torch.tensor([0.0]))
    assert close(velocities(transformer, [0]), unconditional + (conditional - unconditional) * 7)


def test_the_unconditional_velocity_is_that_of_a_context_of_zeros(transformer: AudioOmniTransformer) -> None:
    zeros = transformer.collate_context([transformer.encode_context(torch.zeros(300, 768))])
    global_embeds = transformer.encode_global(normal(2, 3, 364, 768)[0])[None]
    latents, ones = normal(1, 3, 64, 236)[:1], torch.ones(1)
    of_zeros = transformer(latents, TIMES[:1], zeros, global_embeds, ones)
    assert close(velocities(transformer, [0], torch.tensor([0.0])), of_zeros)


def test_half_precision_keeps_timesteps_and_norms_in_float32(transformer: AudioOmniTransformer, tmp_path: Path) -> None:
    transformer.save_pretrained(tmp_path)
    half = AudioOmniTransformer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.dtype == half.proj_in.weight.dtype == torch.bfloat16
    assert half.time_proj.weight.dtype == half.transformer_blocks[0].norm1.weight.dtype == torch.float32
    exact = velocities(transformer, [0, 1, 2])
    rough = velocities(half, [0, 1, 2])
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.05 * exact.abs().max()
