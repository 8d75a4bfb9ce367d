"""Tokens are drawn as torch's own multinomial draws them, whoever is drawn for beside."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_worker.models.audio_omni.thinker.token_sampler import TokenNoise, TokenSampler

VOCABULARY = 300


@pytest.fixture(scope="module")
def sampler() -> TokenSampler:
    return TokenSampler()


def logits_of(seed: int, rows: int, spread: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * spread


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    temperature=st.floats(0.01, 2),
    spread=st.sampled_from([0.1, 3.0, 30.0]),
    draws=st.integers(1, 4),
)
def test_a_seed_draws_what_multinomial_draws(seed: int, temperature: float, spread: float, draws: int) -> None:
    sampler = TokenSampler()
    generator, noise = torch.Generator().manual_seed(seed), TokenNoise(seed, temperature)

    for number in range(draws):
        logits = logits_of(number, 1, spread)
        chances = torch.softmax(logits[0] / temperature, dim=-1)
        expected = int(torch.multinomial(chances, 1, generator=generator))
        assert sampler.choose(logits, [noise]) == [expected]
        noise.advance()


def test_without_noise_the_likeliest_is_chosen_also_beside_drawn_ones(sampler: TokenSampler) -> None:
    logits = logits_of(5, 3)
    alone = [sampler.choose(logits[row : row + 1], [TokenNoise(row, 1.5)])[0] for row in range(3)]

    chosen = sampler.choose(logits, [TokenNoise(0, 1.5), None, TokenNoise(2, 1.5)])

    assert chosen == [alone[0], int(logits[1].argmax()), alone[2]]


def test_until_it_advances_a_draw_is_the_same(sampler: TokenSampler) -> None:
    logits, noise = logits_of(6, 1, spread=0.1), TokenNoise(1, 1.0)
    first = [sampler.choose(logits, [noise]) for _ in range(2)]

    noise.advance()

    assert first[0] == first[1] != sampler.choose(logits, [noise])
