"""Answers in the making: each a session of its own, and many of them a token further in one forward."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, DynamicLayer, Qwen2_5OmniThinkerForConditionalGeneration, Qwen2Tokenizer

ALIKE, ALIKE_TOKENS = 2, 256
"""Sessions share a forward where the longest is at most `ALIKE` times as long as the shortest, and `ALIKE_TOKENS`: the
shorter ones are padded, and one long recording must not make ten short questions as expensive as itself."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A chat as the model's inputs, with the position of every token [3, 1, n] (time, height, width)."""

    inputs: dict[str, Tensor]
    positions: Tensor


class ThinkerSession:
    """One answer: what was read and written so far, and how the next token is chosen. Made by `Thinker.start`.

    Args:
        tokenizer: turns the answer into text.
        stops: tokens that end it.
        max_new_tokens: length at which it is cut.
        temperature: 0 takes the likeliest token; above, tokens are drawn, flatter the higher it is.
        seed: of the draw.
    """

    def __init__(
        self,
        tokenizer: Qwen2Tokenizer,
        *,
        stops: frozenset[int],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> None:
        self._tokenizer = tokenizer
        self._stops = stops
        self._limit = max_new_tokens
        self._temperature = temperature
        # On the CPU whatever the model's device, so that one seed draws the same everywhere.
        self._generator = torch.Generator().manual_seed(seed)
        self._ids: list[int] = []
        self._chosen: int | None = None
        self._likeliest = 0
        self._logits = torch.empty(0)
        self.cache: DynamicCache | None = None
        """Keys and values of everything read and written, while no `AnswerBatch` holds them."""
        self.length = 0
        """Tokens in it."""
        self.next_position = 0
        """Of the token that is written next."""
        self.finished = False
        """Whether the answer is complete or at its limit."""

    @property
    def tokens(self) -> int:
        """How many new tokens there are so far, the one that ends the answer included."""
        return len(self._ids)

    @property
    def most_tokens(self) -> int:
        """How many tokens there will be at most, those that were read included."""
        return self.length + self._limit - len(self._ids)

    @property
    def tensors(self) -> Iterator[Tensor]:
        """Everything that it holds on the device, before an `AnswerBatch` holds it."""
        yield self._logits
        if self.cache is not None:
            for layer in _layers(self.cache):
                yield from (layer.keys, layer.values)

    @property
    def text(self) -> str:
        """The new tokens so far as text, without the model's marks; bytes that are no UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True))

    def choose(self) -> int:
        """The next token. The same one until it was taken in, so that a step that failed can be done again."""
        if self._chosen is None:
            self._chosen = self._draw() if self._temperature > 0 else self._likeliest
        return self._chosen

    def ends(self) -> bool:
        """Whether the next token is the last one; then the answer is finished, and its cache is free."""
        token = self.choose()
        if token not in self._stops and len(self._ids) + 1 < self._limit:
            return False
        self._ids.append(token)
        # The keys and values are most of a session's memory: free them before the text is fetched.
        self.cache, self.finished = None, True
        return True

    def take_in(self, logits: Tensor, likeliest: int) -> None:
        """The chosen token was fed to the model, which says this [vocabulary] of the one after it."""
        if self._chosen is not None:
            self._ids.append(self._chosen)
            self.length += 1
            self.next_position += 1
        self._chosen = None
        self._logits, self._likeliest = logits, likeliest

    def _draw(self) -> int:
        chances = torch.softmax(self._logits.float() / self._temperature, dim=-1).cpu()
        return int(torch.multinomial(chances, 1, generator=self._generator))


class AnswerBatch:
    """Steps any sessions of one model, in as few forwards as their lengths allow. Sessions come and go between steps.

    Args:
        model: the thinker.
    """

    def __init__(self, model: Qwen2_5OmniThinkerForConditionalGeneration) -> None:
        self._model = model
        self._groups: list[_Group] = []

    @torch.inference_mode()
    def step(self, sessions: Sequence[ThinkerSession]) -> None:
        """Write one token of every session that is not finished. Where it raises, it may be called again."""
        going = [session for session in sessions if not session.finished and not session.ends()]
        self._gather(going)
        for group in self._groups:
            group.feed()

    def let_go(self, session: ThinkerSession) -> None:
        """Forget a session that is stepped no more."""
        if any(session in group.sessions for group in self._groups):
            self._dissolve()

    def _gather(self, sessions: Sequence[ThinkerSession]) -> None:
        held = {session for group in self._groups for session in group.sessions}
        if held != set(sessions):
            self._dissolve()
            for alike in _alike(sessions):  # one by one: where memory ends, those before are kept
                self._groups.append(_Group(self._model, alike))

    def _dissolve(self) -> None:
        for group in self._groups:
            group.dissolve()
        self._groups = []


class _Group:
    """Sessions in one cache, padded at the left to the longest of them; a cache of its own for a single one."""

    def __init__(self, model: Qwen2_5OmniThinkerForConditionalGeneration, sessions: Sequence[ThinkerSession]) -> None:
        self.sessions = tuple(sessions)
        self._model = model
        self._cache = _merge(sessions)
        self._mask = _mask_padding([session.length for session in sessions], model.device)
        for session in sessions:
            session.cache = None

    def feed(self) -> None:
        """Feed every session's next token to the model."""
        device, length = self._model.device, self._cache.get_seq_length()
        tokens = torch.tensor([[session.choose()] for session in self.sessions], device=device)
        positions = torch.tensor([[session.next_position] for session in self.sessions], device=device)
        mask = None if self._mask is None else functional.pad(self._mask, (0, 1), value=True)
        try:
            hidden = self._model.model.language_model(
                input_ids=tokens,
                attention_mask=mask,
                position_ids=positions.expand(3, -1, -1),
                cache=self._cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            logits = self._model.lm_head(hidden)
            likeliest = logits.argmax(-1).tolist()
        except BaseException:
            _crop(self._cache, length)
            raise
        self._mask = mask
        for session, row, token in zip(self.sessions, logits, likeliest, strict=True):
            session.take_in(row, token)

    def dissolve(self) -> None:
        """Give every session its own part of the cache, for now as a view."""
        for row, session in enumerate(self.sessions):
            session.cache = None if session.finished else _part(self._cache, row, session.length)


def _alike(sessions: Sequence[ThinkerSession]) -> list[list[ThinkerSession]]:
    """The sessions in groups of about the same length."""
    groups: list[list[ThinkerSession]] = []
    for session in sorted(sessions, key=lambda one: one.length):
        if groups and session.length <= ALIKE * groups[-1][0].length + ALIKE_TOKENS:
            groups[-1].append(session)
        else:
            groups.append([session])
    return groups


def _merge(sessions: Sequence[ThinkerSession]) -> DynamicCache:
    """The sessions' caches as one of as many rows, padded at the left."""
    caches = [session.cache for session in sessions if session.cache is not None]
    if len(caches) == 1:
        return caches[0]
    longest = max(cache.get_seq_length() for cache in caches)
    return _cache_of(
        (_stack([layer.keys for layer in layers], longest), _stack([layer.values for layer in layers], longest))
        for layers in zip(*(_layers(cache) for cache in caches), strict=True)
    )


def _layers(cache: DynamicCache) -> Any:
    """Its layers, which are all dynamic: transformers declares any of its kinds."""
    return cache.layers


def _stack(rows: Sequence[Tensor], longest: int) -> Tensor:
    return torch.cat([functional.pad(row, (0, 0, longest - row.shape[-2], 0)) for row in rows])


def _part(cache: DynamicCache, row: int, length: int) -> DynamicCache:
    kept = slice(row, row + 1), slice(None), slice(cache.get_seq_length() - length, None)
    return _cache_of((layer.keys[kept], layer.values[kept]) for layer in _layers(cache))


def _cache_of(layers: Iterable[tuple[Tensor, Tensor]]) -> DynamicCache:
    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values  # `update` would copy them
        cache.layers.append(layer)
    return cache


def _crop(cache: DynamicCache, length: int) -> None:
    """Take back what some of the layers have taken in already."""
    for layer in _layers(cache):
        layer.crop(min(0, length - layer.get_seq_length()))


def _mask_padding(lengths: Sequence[int], device: torch.device) -> Tensor | None:
    """[sessions, 1, 1, longest], True where there is a token; None where all are equally long."""
    if len(set(lengths)) == 1:
        return None
    places = torch.arange(max(lengths), device=device)
    starts = max(lengths) - torch.tensor(lengths, device=device)
    return (places >= starts[:, None])[:, None, None]
