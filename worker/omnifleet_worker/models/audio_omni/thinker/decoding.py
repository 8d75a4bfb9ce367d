"""Answers in the making: prompts that are read and answers that are written, many of them in one forward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2Tokenizer

from ...streams import to_device
from .kv_cache import SPARE_TOKEN, KVCache, Span
from .text_model import (
    FEWEST_KEYS,
    KEYS_GROWTH,
    SPARE_ROW,
    TextModel,
    filled_rows,
    is_graphed,
    power_of_two,
)
from .token_sampler import TokenNoise, TokenSampler

CHUNK = 2048
"""Tokens of prompts that are read in one step: answers that are being written wait for no more than that."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A chat as the text layers read it.

    Attributes:
        embeds: [n, hidden size], of text, sounds and frames.
        positions: [3, n], int64, of every token in time, height and width; on the device, as the embeddings.
        next_position: of the answer's first token.
    """

    embeds: Tensor
    positions: Tensor
    next_position: int


class DecodeState:
    """One answer: what was read and written so far, and how the next token is chosen. Made by `Thinker.start`.

    Args:
        prompt: what is read first.
        span: of the cache, for the prompt and all new tokens.
        tokenizer: turns the answer into text.
        stops: tokens that end it.
        max_new_tokens: length at which it is cut.
        noise: what tokens are drawn by; None takes the likeliest.
        begun: what the chat has of the answer already.
        written: tokens of the answer that end the prompt.
    """

    def __init__(
        self,
        prompt: Prompt,
        span: Span,
        tokenizer: Qwen2Tokenizer,
        *,
        stops: frozenset[int],
        max_new_tokens: int,
        noise: TokenNoise | None,
        begun: str = "",
        written: Sequence[int] = (),
    ) -> None:
        self.prompt: Prompt | None = prompt
        """Until all of it is read."""
        self.span: Span | None = span
        """Until it is given back."""
        self.length = 0
        """Tokens whose keys and values the cache holds."""
        self.noise = noise
        """Until it is freed."""
        self.finished = False
        """Whether the answer is complete or at its limit."""
        self._tokenizer = tokenizer
        self._begun = begun
        self._stops = stops
        self._limit = max_new_tokens
        self._ids = list(written)
        self._next: int | None = None
        self._first_position = prompt.next_position

    @property
    def tokens(self) -> int:
        """How many tokens of the answer there are so far, the one that ends it included."""
        return len(self._ids)

    @property
    def ids(self) -> tuple[int, ...]:
        """Those tokens. Any thread may ask."""
        return tuple(self._ids)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """Everything that it holds on the device beside the cache."""
        if self.prompt is not None:
            yield from (self.prompt.embeds, self.prompt.positions)

    @property
    def text(self) -> str:
        """The answer so far, without the model's marks; bytes that are no UTF-8 become U+FFFD. Any thread may ask."""
        return self._begun + str(self._tokenizer.decode(list(self._ids), skip_special_tokens=True))

    @property
    def unread(self) -> int:
        """Tokens of the prompt that are still to be read."""
        return 0 if self.prompt is None else len(self.prompt.embeds) - self.length

    @property
    def row(self) -> tuple[int, int, int, int, int]:
        """The next token as `TextModel.decode` takes it."""
        assert self.span is not None and self._next is not None
        position = self._first_position + len(self._ids)
        return self._next, position, self.span.start + self.length, self.span.start, self.length + 1

    def ends(self) -> bool:
        """Whether the next token is the last one; then the answer is finished. It may be asked again."""
        assert self._next is not None
        if not self.finished and (self._next in self._stops or len(self._ids) + 1 == self._limit):
            self._ids.append(self._next)
            self.finished = True
        return self.finished

    def append(self, token: int) -> None:
        """The next token was fed to the model, which chose this one to follow."""
        assert self._next is not None
        self._ids.append(self._next)
        self.length += 1
        self._choose(token)

    def read(self, count: int, token: int) -> None:
        """So many tokens of the prompt were read; if they were the last ones, the model chose this one to follow."""
        self.length += count
        if self.unread == 0:
            self.prompt = None
            self._choose(token)

    def _choose(self, token: int) -> None:
        self._next = token
        if self.noise is not None:
            self.noise.advance()


class DecodeBatch:
    """Steps any answers of one model together. They come and go between steps; nothing of the others' is moved.

    Args:
        model: the thinker's text layers.
        cache: keys and values of its answers.
    """

    def __init__(self, model: TextModel, cache: KVCache) -> None:
        self._model = model
        self._cache = cache
        self._sampler = TokenSampler(model.vocabulary, cache.device)

    def noise(self, seed: int, temperature: float, drawn: int = 0) -> TokenNoise | None:
        """What an answer's tokens are drawn by, after so many; None at temperature 0, which takes the likeliest."""
        return self._sampler.noise(seed, temperature, drawn) if temperature > 0 else None

    @torch.inference_mode()
    def step(self, states: Sequence[DecodeState]) -> None:
        """Write one token of every answer whose prompt is read, and is not finished; read what may be read first.

        Where it raises, it may be called again.
        """
        self._read([state for state in states if state.unread])
        self._write([state for state in states if not (state.unread or state.finished)])

    def free(self, state: DecodeState) -> None:
        """Give the memory of an answer back that is stepped no more."""
        noise, state.noise = state.noise, None
        if noise is not None:
            noise.stop()
        span, state.span = state.span, None
        if span is not None:
            self._cache.free(span)

    def _write(self, states: Sequence[DecodeState]) -> None:
        for state in states:
            if state.ends():
                self.free(state)
        going = [state for state in states if not state.finished]
        if not going:
            return
        rows = torch.tensor([state.row for state in going]).T
        spare = torch.tensor(SPARE_ROW)[:, None]
        rows = torch.cat([rows, spare.expand(-1, power_of_two(len(going)) - len(going))], 1)
        logits = self._model.decode(to_device(rows, self._cache.device), self._most_keys(int(rows[4].max())))
        chosen = self._sampler.choose(logits[: len(going)], [state.noise for state in going])
        for state, token in zip(going, chosen, strict=True):
            state.append(token)

    def _read(self, states: Sequence[DecodeState]) -> None:
        room, parts = CHUNK, []
        for state in states:
            count = min(room, state.unread)
            if count:
                parts.append(_PromptPart.of(state, count))
                room -= count
        if not parts:
            return
        logits = self._model.read(*_pack(parts, self._cache.device))
        # A part that is not its prompt's last chooses nothing: its draw is not used up.
        noises = [part.state.noise if part.is_last else None for part in parts]
        chosen = self._sampler.choose(logits[: len(parts)], noises)
        for part, token in zip(parts, chosen, strict=True):
            part.state.read(len(part.embeds), token)

    def _most_keys(self, keys: int) -> int:
        most = FEWEST_KEYS
        while most < keys:
            most *= KEYS_GROWTH
        return min(most, self._cache.tokens)


@dataclass(frozen=True, eq=False)
class _PromptPart:
    """Rows of a prompt that are read next."""

    state: DecodeState
    embeds: Tensor
    positions: Tensor
    writes: range
    start: int
    is_last: bool

    @classmethod
    def of(cls, state: DecodeState, count: int) -> _PromptPart:
        prompt, span = state.prompt, state.span
        assert prompt is not None and span is not None
        rows = slice(state.length, state.length + count)
        writes = range(span.start + rows.start, span.start + rows.stop)
        last = count == state.unread
        return cls(state, prompt.embeds[rows], prompt.positions[:, rows], writes, span.start, last)

    @property
    def keys(self) -> int:
        return self.writes.stop - self.start


def _pack(parts: Sequence[_PromptPart], device: torch.device) -> tuple[Tensor, Tensor, Tensor, int, int]:
    """Arguments of `TextModel.read`."""
    counts = [len(part.embeds) for part in parts]
    rows, most_rows, most_keys = sum(counts), max(counts), max(part.keys for part in parts)
    if is_graphed(len(parts), most_keys):
        most_rows = most_keys = filled_rows(most_keys)
    filling = max(0, most_rows - rows)
    embeds = functional.pad(torch.cat([part.embeds for part in parts]), (0, 0, 0, filling))
    positions = functional.pad(torch.cat([part.positions for part in parts], 1), (0, filling))
    writes = [place for part in parts for place in part.writes] + [SPARE_TOKEN] * filling
    starts, keys = [part.start for part in parts], [part.keys for part in parts]
    spans = torch.tensor([[*starts, 0], [*keys, 0], [*accumulate(counts, initial=0)]])
    places = torch.cat([positions, to_device(torch.tensor([writes]), device)])
    return embeds, places, to_device(spans, device), most_rows, most_keys
