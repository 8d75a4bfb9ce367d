"""The choice of the next tokens from their logits, on the device: the host learns the chosen ones alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ...streams import to_device

MOST_DRAWING_THREADS = 16
"""That draw uniform numbers: a vocabulary of them takes 0.7 ms of a core, a step of the device 5 ms."""


class TokenNoise:
    """What one answer's tokens are drawn by: a seed gives the tokens that `torch.multinomial` draws on a CPU.

    It draws the token i for which p_i / q_i is largest, q exponentially distributed, and makes q from uniform numbers
    of the generator one after the other. Those are made here by the same generator; the rest is done on the device.
    Made by `TokenSampler.noise`.

    Args:
        seed: of the generator, on the CPU whatever the model's device, so that it draws the same everywhere.
        temperature: above 0; tokens are drawn the flatter the higher it is.
        numbers: [vocabulary], float64, to draw into.
        threads: that draw.
        drawn: tokens of the answer that were drawn before.
    """

    def __init__(self, seed: int, temperature: float, numbers: Tensor, threads: Executor, drawn: int = 0) -> None:
        self.temperature = temperature
        self._generator = torch.Generator().manual_seed(seed)
        self._numbers = numbers
        self._threads = threads
        self._drawing: Future[None] | None = None
        for _ in range(drawn):
            _draw(numbers, self._generator)

    def draw(self) -> None:
        """Begin this draw on another thread, if it has not begun."""
        if self._drawing is None:
            self._drawing = self._threads.submit(_draw, self._numbers, self._generator)

    def uniform(self) -> Tensor:
        """Wait for the numbers [vocabulary] of this draw; the same ones until `advance`, so that a step can be done
        again."""
        self.draw()
        assert self._drawing is not None
        self._drawing.result()
        return self._numbers

    def advance(self) -> None:
        """The token was taken, so the device has read the numbers: draw the next ones while it computes."""
        self._drawing = None
        self.draw()

    def stop(self) -> None:
        """Forget what was drawn ahead: no further token is asked for."""
        if self._drawing is not None:
            self._drawing.cancel()


class TokenSampler:
    """Chooses the tokens of many answers at once.

    Args:
        vocabulary: tokens to choose from.
        device: of the logits.
    """

    def __init__(self, vocabulary: int, device: torch.device) -> None:
        self._vocabulary = vocabulary
        self._device = device
        count = min(MOST_DRAWING_THREADS, len(os.sched_getaffinity(0)))
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="draw")

    def noise(self, seed: int, temperature: float, drawn: int = 0) -> TokenNoise:
        """What one answer's tokens are drawn by, above temperature 0, after so many that were drawn before; its numbers
        are where the device reads them."""
        numbers = torch.empty(self._vocabulary, dtype=torch.float64, pin_memory=self._device.type == "cuda")
        return TokenNoise(seed, temperature, numbers, self._threads, drawn)

    def choose(self, logits: Tensor, noises: Sequence[TokenNoise | None]) -> list[int]:
        """The next token of every answer, the likeliest where it has no noise. Waits for the device.

        Args:
            logits: [n, vocabulary].
            noises: of the n answers.
        """
        tokens = logits.argmax(-1)
        drawn = {row: noise for row, noise in enumerate(noises) if noise is not None}
        if drawn:
            rows = to_device(torch.tensor(list(drawn)), self._device)
            tokens[rows] = self._draw(logits[rows], list(drawn.values()))
        chosen: list[int] = tokens.tolist()
        return chosen

    def _draw(self, logits: Tensor, noises: Sequence[TokenNoise]) -> Tensor:
        for noise in noises:
            noise.draw()
        temperatures = to_device(torch.tensor([noise.temperature for noise in noises]), self._device)
        chances = torch.softmax(logits.float() / temperatures[:, None], dim=-1)
        uniform = torch.empty(logits.shape, dtype=torch.float64, device=self._device)
        for row, noise in zip(uniform, noises, strict=True):
            row.copy_(noise.uniform(), non_blocking=True)
        waiting = uniform.neg_().log1p_().neg_()
        return (chances / waiting.float()).argmax(-1)


@torch.inference_mode()
def _draw(numbers: Tensor, generator: torch.Generator) -> None:
    # Numbers made in inference mode may be written in inference mode only, which every thread has for itself.
    numbers.uniform_(generator=generator)
