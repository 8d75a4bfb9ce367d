"""The thinker (Qwen2.5-Omni): hidden states that condition the DiT, and chats answered one token at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

from ..chat import Chat
from .decoding import DecodeBatch, DecodeState, Prompt
from .kv_cache import KVCache
from .prompt_reader import PromptReader
from .text_model import TextModel, filled_rows, is_graphed

_STOP_MARKS = ("<|im_end|>", "<|endoftext|>")


class Thinker:
    """Runs one thinker for many requests; nothing of a request stays on the model between calls.

    Args:
        model: the thinker; any number of answers may be in the making on it. Once it was used, it stays on its device.
        processor: the tokeniser, mel, and image and video preprocessing that belong to it.
    """

    def __init__(self, model: Qwen2_5OmniThinkerForConditionalGeneration, processor: Qwen2_5OmniProcessor) -> None:
        self._model = model
        self._tokenizer = processor.tokenizer
        self._reader = PromptReader(model, processor)
        self._stops = frozenset(processor.tokenizer.convert_tokens_to_ids(list(_STOP_MARKS)))
        self.cache_tokens: int = model.model.language_model.config.max_position_embeddings
        """Tokens of all answers together that there is memory for; to be set before the first use."""
        self._allocating = threading.Lock()
        self._allocated: _DeviceSide | None = None

    @torch.inference_mode()
    def encode(self, chat: Chat) -> Tensor:
        """Hidden states [n, 2048] that go into the last layer, in the model's dtype (docs/model.md, "Omni prompt").

        Raises:
            InvalidJob: the text is too long, or holds the model's control marks.
            MediaEmpty: a clip without samples or frames.
            MediaTooLong: a clip over the processor's window, or media with more tokens than the model's context.
        """
        prompt = self._reader.read(chat, frames_per_second=2.0, room=0)
        rows = len(prompt.embeds)
        return self._device_side.text.encode(*_fill_up(prompt))[:rows].clone()

    @torch.inference_mode()
    def start(
        self,
        chat: Chat,
        *,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        frames_per_second: float = 2.0,
        written: Sequence[int] = (),
    ) -> DecodeState:
        """Encode the chat's media and return the answer's state; the first `step` reads it and gives its first token.

        Args:
            chat: what is asked.
            max_new_tokens: length at which the answer is cut, with what was written of it before; one more is always
                written.
            temperature: 0 takes the likeliest token; above, tokens are drawn, flatter the higher it is.
            seed: of the draw.
            frames_per_second: at which the chat's frames were taken; the positions in time follow from it.
            written: the answer's first tokens, which are read instead of written; what is drawn behind them is what
                would have been drawn there. A token that ends the answer is chosen again.

        Raises:
            OutOfMemory: the cache has no room for it as long as others are in the making.
            Others: as `encode`; the new tokens count against the model's context.
        """
        if chat.begun:
            max_new_tokens = max(1, max_new_tokens - len(self._tokenizer(chat.begun)["input_ids"]))
        prompt = self._reader.read(chat, frames_per_second, room=max_new_tokens)
        ids = list(takewhile(lambda token: token not in self._stops, written))[: max_new_tokens - 1]
        if ids:
            prompt = self._reader.follow(prompt, ids)
        side = self._device_side
        noise = side.answers.noise(seed, temperature, len(ids))
        return DecodeState(
            prompt,
            side.cache.allocate(len(prompt.embeds) + max_new_tokens - len(ids)),
            self._tokenizer,
            stops=self._stops,
            max_new_tokens=max_new_tokens,
            noise=noise,
            begun=chat.begun,
            written=ids,
        )

    def step(self, states: Sequence[DecodeState]) -> None:
        """Write one token of every answer that is not finished and whose prompt is read; long prompts take several
        steps to be read. Where it raises, it may be called again."""
        self._device_side.answers.step(states)

    def free(self, state: DecodeState) -> None:
        """Forget an answer that is stepped no more."""
        self._device_side.answers.free(state)

    def compile(self, backend: str | Callable[..., Any] = "inductor") -> None:
        """Compile the text layers: at their first uses, which `torch.compile` makes seconds longer."""
        self._device_side.text.compile(backend)

    @torch.inference_mode()
    def capture(self, answers: int) -> None:
        """On a GPU, capture the usual calls before the first of them, for up to so many answers at once."""
        self._device_side.text.capture(answers)

    @property
    def _device_side(self) -> _DeviceSide:
        # Conditioning and answers have threads of their own: whichever comes first allocates, for both.
        with self._allocating:
            if self._allocated is None:
                self._allocated = _DeviceSide(self._model, self.cache_tokens)
            return self._allocated


class _DeviceSide:
    """What a thinker has on its device beside the weights."""

    def __init__(self, model: Qwen2_5OmniThinkerForConditionalGeneration, cache_tokens: int) -> None:
        self.cache = KVCache(model.model.language_model.config, cache_tokens, model.device, model.dtype)
        self.text = TextModel(model, self.cache)
        self.answers = DecodeBatch(self.text, self.cache)


def _fill_up(prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Embeddings and positions, as many as graphs are captured for; later rows change nothing in earlier ones."""
    rows = len(prompt.embeds)
    filling = filled_rows(rows) - rows if is_graphed(1, rows) else 0
    return functional.pad(prompt.embeds, (0, 0, 0, filling)), functional.pad(prompt.positions, (0, filling))
