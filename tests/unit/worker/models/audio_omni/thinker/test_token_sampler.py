"""Tokens are drawn as torch's own multinomial draws them, whoever is drawn for beside."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omnifleet_worker.models.audio_omni.thinker.token_sampler import TokenNoise, TokenSampler

VOCABULARY, CPU = 300, torch.device("cpu")


@pytest.fixture(scope="module")
def sampler() -> TokenSampler:
    return TokenSampler(VOCABULARY, CPU)


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
    sampler = TokenSampler(VOCABULARY, CPU)
    generator, noise = torch.Generator().manual_seed(seed), sampler.noise(seed, temperature)

    for number in range(draws):
        logits = logits_of(number, 1, spread)
        chances = torch.softmax(logits[0] / temperature, dim=-1)
        expected = int(torch.multinomial(chances, 1, generator=generator))
        assert sampler.choose(logits, [noise]) == [expected]
        noise.advance()


def test_without_noise_the_likeliest_is_chosen_also_beside_drawn_ones(sampler: TokenSampler) -> None:
    logits = logits_of(5, 3)
    alone = [sampler.choose(logits[row : row + 1], [sampler.noise(row, 1.5)])[0] for row in range(3)]

    chosen = sampler.choose(logits, [sampler.noise(0, 1.5), None, sampler.noise(2, 1.5)])

    assert chosen == [alone[0], int(logits[1].argmax()), alone[2]]


def test_until_it_advances_a_draw_is_the_same(sampler: TokenSampler) -> None:
    logits, noise = logits_of(6, 1, spread=0.1), sampler.noise(1, 1.0)
    first = [sampler.choose(logits, [noise]) for _ in range(2)]

    noise.advance()

    assert first[0] == first[1] != sampler.choose(logits, [noise])


def test_drawn_ahead_numbers_are_those_drawn_when_asked_for() -> None:
    generator, drawn = torch.Generator().manual_seed(3), torch.empty(VOCABULARY, dtype=torch.float64)
    with ThreadPoolExecutor(1) as threads:
        noise = TokenNoise(3, 1.0, drawn, threads)

        for _ in range(3):
            threads.submit(int).result()  # whatever was drawn ahead is there now
            expected = torch.rand(VOCABULARY, generator=generator, dtype=torch.float64)
            assert noise.uniform().equal(expected)
            assert noise.uniform().equal(expected)
            noise.advance()

        threads.submit(int).result()
        assert drawn.equal(torch.rand(VOCABULARY, generator=generator, dtype=torch.float64))


def test_many_answers_draw_what_each_draws_alone(sampler: TokenSampler) -> None:
    logits = [logits_of(number, 40, spread=0.1) for number in range(5)]
    alone = []
    for row in range(40):
        noise = sampler.noise(row, 1.0)
        for step in logits:
            alone += sampler.choose(step[row : row + 1], [noise])
            noise.advance()

    noises, together = [sampler.noise(row, 1.0) for row in range(40)], []
    for step in logits:
        together.append(sampler.choose(step, noises))
        for noise in noises:
            noise.advance()

    assert [token for row in zip(*together, strict=True) for token in row] == alone


def test_a_stopped_answer_draws_nothing_that_has_not_begun() -> None:
    go, untouched = Event(), torch.zeros(VOCABULARY, dtype=torch.float64)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(go.wait)
        noise = TokenNoise(3, 1.0, untouched, threads)
        noise.draw()

        noise.stop()
        go.set()

    assert not untouched.any()


def test_numbers_made_in_inference_mode_are_drawn(sampler: TokenSampler) -> None:
    with torch.inference_mode():
        noise = sampler.noise(3, 1.0)

    assert noise.uniform().equal(
        torch.rand(VOCABULARY, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )
