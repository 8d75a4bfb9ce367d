"""The choice of the next tokens from their logits, on the device: the host learns the chosen ones alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import torch
from torch import Tensor

from ...streams import to_device

DRAWING_THREADS = 4
"""That draw uniform numbers: a vocabulary of them takes 0.7 ms of a core, a step of the device 5 ms."""


class TokenNoise:
    """What one answer's tokens are drawn by: a seed gives the tokens that `torch.multinomial` draws on a CPU.

    It draws the token i for which p_i / q_i is largest, q exponentially distributed, and makes q from uniform numbers
    of the generator one after the other. Those are made here by the same generator; the rest is done on the device.

    Args:
        seed: of the generator, on the CPU whatever the model's device, so that it draws the same everywhere.
        temperature: above 0; tokens are drawn the flatter the higher it is.
    """

    def __init__(self, seed: int, temperature: float) -> None:
        self.temperature = temperature
        self._generator = torch.Generator().manual_seed(seed)
        self._uniform: Tensor | None = None

    def uniform(self, tokens: int) -> Tensor:
        """Numbers [tokens] of this draw, float64; the same ones until `advance`, so that a step can be done again."""
        if self._uniform is None:
            self._uniform = torch.rand(tokens, generator=self._generator, dtype=torch.float64)
        return self._uniform

    def advance(self) -> None:
        """The token was taken: the next draw has numbers of its own."""
        self._uniform = None


class TokenSampler:
    """Chooses the tokens of many answers at once."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(DRAWING_THREADS, thread_name_prefix="draw")

    def choose(self, logits: Tensor, noises: Sequence[TokenNoise | None]) -> list[int]:
        """The next token of every answer, the likeliest where it has no noise. Waits for the device.

        Args:
            logits: [n, vocabulary].
            noises: of the n answers.
        """
        tokens = logits.argmax(-1)
        drawn = {row: noise for row, noise in enumerate(noises) if noise is not None}
        if drawn:
            rows = to_device(torch.tensor(list(drawn)), logits.device)
            tokens[rows] = self._draw(logits[rows], list(drawn.values()))
        chosen: list[int] = tokens.tolist()
        return chosen

    def _draw(self, logits: Tensor, noises: Sequence[TokenNoise]) -> Tensor:
        device, vocabulary = logits.device, logits.shape[1]
        temperatures = to_device(torch.tensor([noise.temperature for noise in noises]), device)
        chances = torch.softmax(logits.float() / temperatures[:, None], dim=-1)
        uniform = torch.stack(list(self._threads.map(TokenNoise.uniform, noises, repeat(vocabulary))))
        waiting = -torch.log1p(-to_device(uniform, device))
        return (chances / waiting.float()).argmax(-1)
