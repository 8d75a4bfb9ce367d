"""Answers have the tokens that transformers' own layers and cache give, alone and together, read whole or in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import OutOfMemory
from omnifleet_worker.models.audio_omni.chat import VIDEO_MARKS, Chat
from omnifleet_worker.models.audio_omni.thinker import decoding
from omnifleet_worker.models.audio_omni.thinker.decoding import DecodeState
from omnifleet_worker.models.audio_omni.thinker.thinker import Thinker
from omnifleet_worker.models.audio_omni.tiny import tiny_processor, tiny_thinker
from transformers import DynamicCache

PROCESSOR, MODEL, PUBLISHED = tiny_processor(), tiny_thinker(seed=3), tiny_thinker(seed=3)
RANDOM = np.random.default_rng(7)
WAVE = (RANDOM.standard_normal(16_000) * 0.1).astype(np.float32)
FRAMES = RANDOM.integers(0, 256, (4, 56, 84, 3), dtype=np.uint8)
CHATS = [
    Chat("Be kind.", "Hello"),
    Chat("Be kind.", "What is this?", audio=(WAVE,)),
    Chat("Be kind.", f"A door\n{VIDEO_MARKS}", video=(FRAMES,)),
    Chat("Be kind.", "Describe.", audio=(WAVE, WAVE[:8_000]), video=(FRAMES,)),
    Chat("Be kind.", "and this " * 30),
]
OPTIONS: list[dict[str, Any]] = [
    {"max_new_tokens": 9},
    {"max_new_tokens": 12, "temperature": 5.0, "seed": 1},
    {"max_new_tokens": 5, "temperature": 0.5, "seed": 2},
    {"max_new_tokens": 7},
    {"max_new_tokens": 6, "temperature": 2.0, "seed": 1},
]


@torch.inference_mode()
def published_answer(chat: Chat, max_new_tokens: int, temperature: float = 0.0, seed: int = 0) -> str:
    """By transformers' whole model and growing cache, drawn by torch's multinomial on the CPU."""
    media: dict[str, Any] = {"audio": list(chat.audio)} if chat.audio else {}
    media |= {"videos": list(chat.video), "do_sample_frames": False} if chat.video else {}
    inputs = dict(PROCESSOR(text=[chat.text], return_tensors="pt", **media))
    generator, cache, ids = (
        torch.Generator().manual_seed(seed),
        DynamicCache(config=MODEL.config.text_config),
        list[int](),
    )
    stops = PROCESSOR.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    PUBLISHED.model.rope_deltas = None  # a forward leaves the offset of its positions on the model
    while len(ids) < max_new_tokens and not (ids and ids[-1] in stops):
        logits = PUBLISHED(**inputs, cache=cache, use_cache=True).logits[0, -1]
        chances = torch.softmax(logits.float() / (temperature or 1.0), dim=-1)
        drawn = torch.multinomial(chances, 1, generator=generator) if temperature else logits.argmax()[None]
        ids.append(int(drawn))
        inputs = {"input_ids": drawn[None]}
    return PROCESSOR.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.fixture(scope="module")
def expected() -> list[str]:
    return [published_answer(chat, **options) for chat, options in zip(CHATS, OPTIONS, strict=True)]


@pytest.fixture
def thinker() -> Thinker:
    return Thinker(MODEL, PROCESSOR)


def finish(thinker: Thinker, states: list[DecodeState]) -> list[str]:
    for _ in range(100):
        if all(state.finished for state in states):
            return [state.text for state in states]
        thinker.step(states)
    raise AssertionError("the answers do not come to an end")


def start(thinker: Thinker) -> Iterator[DecodeState]:
    for chat, options in zip(CHATS, OPTIONS, strict=True):
        yield thinker.start(chat, **options)


def test_alone(thinker: Thinker, expected: list[str]) -> None:
    assert [finish(thinker, [state])[0] for state in start(thinker)] == expected


def test_together_from_the_first_step(thinker: Thinker, expected: list[str]) -> None:
    assert finish(thinker, list(start(thinker))) == expected


def test_while_others_come_and_go(thinker: Thinker, expected: list[str]) -> None:
    states: list[DecodeState] = []
    for state in start(thinker):
        states.insert(0, state)
        thinker.step(states)

    assert finish(thinker, states) == expected[::-1]


@pytest.mark.parametrize("chunk", [30, 100])
def test_read_in_parts(thinker: Thinker, expected: list[str], monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(decoding, "CHUNK", chunk)
    states = list(start(thinker))
    thinker.step(states)
    assert sum(state.length for state in states) - sum(state.tokens for state in states) == chunk

    while any(state.unread for state in states):
        thinker.step(states)

    assert finish(thinker, states) == expected


def test_the_number_of_answers_is_rounded_up_to_shapes_that_come_again(
    thinker: Thinker, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, shapes = thinker._device_side.text, set()
    graphed = dict(text._graphs)

    def noted(name: str) -> Callable[..., Any]:
        def call(*inputs: torch.Tensor, **fixed: int) -> Any:
            shapes.add((name, *(tuple(one.shape) for one in inputs), *fixed.values()))
            return graphed[name](*inputs, **fixed)

        return call

    monkeypatch.setattr(text, "_graphs", {name: noted(name) for name in graphed})
    states = list(start(thinker))
    for count in (1, 3, 5):
        thinker.step(states[:count])
    finish(thinker, states)
    thinker.encode(CHATS[0])

    assert {shape[1:] for shape in shapes if shape[0] == "_decode"} == {((5, size), 512) for size in (1, 4, 8)}
    assert {shape[1][0] for shape in shapes if shape[0] != "_decode"} == {64}


def test_a_prompt_that_could_not_be_read_is_read_again(
    thinker: Thinker, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = list(start(thinker))

    def full(*args: Any, **inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(MODEL.lm_head, "forward", full)
        with pytest.raises(torch.OutOfMemoryError):
            thinker.step(states)

    assert finish(thinker, states) == expected


def test_memory_is_given_back_once_an_answer_is_finished_or_freed(thinker: Thinker) -> None:
    cache = thinker._device_side.cache
    states = list(start(thinker))
    taken = sum(state.unread + options["max_new_tokens"] for state, options in zip(states, OPTIONS, strict=True))
    assert cache.free_tokens == cache.tokens - taken

    finish(thinker, states[:2])
    for state in states:
        thinker.free(state)
        thinker.free(state)

    assert cache.free_tokens == cache.tokens


def test_an_answer_that_the_memory_has_no_room_for_waits_for_another() -> None:
    thinker = Thinker(MODEL, PROCESSOR)
    thinker.cache_tokens = 100
    first = thinker.start(CHATS[0], max_new_tokens=20)

    with pytest.raises(OutOfMemory):
        thinker.start(CHATS[0], max_new_tokens=20)
    finish(thinker, [first])

    assert thinker.start(CHATS[0], max_new_tokens=20).unread


def test_layers_are_compiled_once_for_one_row_and_once_for_several(thinker: Thinker, expected: list[str]) -> None:
    compiled: list[Any] = []

    def backend(module: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        compiled.append(module)
        return module.forward

    thinker.compile(backend)
    try:
        answers = finish(thinker, list(start(thinker)))
        hidden = thinker.encode(CHATS[1])
    finally:
        torch._dynamo.reset()

    assert answers == expected
    assert (hidden - Thinker(MODEL, PROCESSOR).encode(CHATS[1])).abs().max() < 1e-4
    assert len(compiled) == 4


def test_an_answer_that_was_begun_is_gone_on_with(thinker: Thinker) -> None:
    whole = thinker.start(Chat("Be kind.", "Hello", begun=""), max_new_tokens=12)
    (text,) = finish(thinker, [whole])
    begun = text.rstrip("\N{REPLACEMENT CHARACTER}")[: len(text) // 2]

    state = thinker.start(Chat("Be kind.", "Hello", begun=begun), max_new_tokens=12)
    prompt = published_answer(Chat("Be kind.", "Hello", begun=begun), max_new_tokens=1)
    (continued,) = finish(thinker, [state])

    assert begun
    assert continued.startswith(begun + prompt)
    assert state.tokens <= max(1, 12 - len(PROCESSOR.tokenizer(begun)["input_ids"]))


@pytest.mark.parametrize("number", range(len(CHATS)))
def test_an_answer_goes_on_behind_its_first_tokens_as_if_it_had_written_them(
    thinker: Thinker, expected: list[str], number: int
) -> None:
    chat, options = CHATS[number], OPTIONS[number]
    whole = thinker.start(chat, **options)
    finish(thinker, [whole])

    for count in range(len(whole.ids) + 1):
        state = thinker.start(chat, **options, written=whole.ids[:count])
        assert finish(thinker, [state]) == [expected[number]]
        assert state.ids == whole.ids


def test_what_was_written_takes_no_more_memory_than_if_it_were_to_be_written(thinker: Thinker) -> None:
    cache = thinker._device_side.cache

    plain = thinker.start(CHATS[1], max_new_tokens=12)
    free, length = cache.free_tokens, plain.unread
    thinker.free(plain)
    begun = thinker.start(CHATS[1], max_new_tokens=12, written=[5, 6, 7])

    assert (cache.free_tokens, begun.unread, begun.tokens) == (free, length + 3, 3)
