"""The thinker on a tiny model: the chat's text, hidden states, and states that do not disturb each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import InvalidJob, MediaEmpty, MediaTooLong
from omnifleet_worker.models.audio_omni.chat import AUDIO_MARKS, VIDEO_MARKS, Chat
from omnifleet_worker.models.audio_omni.thinker.decoding import DecodeState
from omnifleet_worker.models.audio_omni.thinker.thinker import Thinker
from omnifleet_worker.models.audio_omni.tiny import tiny_processor, tiny_thinker
from transformers import Qwen2_5OmniProcessor, Qwen2_5OmniThinkerForConditionalGeneration

RANDOM = np.random.default_rng(7)
WAVE = (RANDOM.standard_normal(16_000) * 0.1).astype(np.float32)
FRAMES = RANDOM.integers(0, 256, (4, 56, 84, 3), dtype=np.uint8)
CHATS = {
    "text": Chat("Be kind.", "Hello"),
    "audio": Chat("Be kind.", "What is this?", audio=(WAVE,)),
    "video": Chat("Be kind.", f"A door\n{VIDEO_MARKS}", video=(FRAMES,)),
    "both": Chat("Be kind.", "Describe.", audio=(WAVE, WAVE[:8_000]), video=(FRAMES,)),
}


@pytest.fixture(scope="module")
def processor() -> Qwen2_5OmniProcessor:
    return tiny_processor()


@pytest.fixture(scope="module")
def model() -> Qwen2_5OmniThinkerForConditionalGeneration:
    return tiny_thinker(seed=3)


@pytest.fixture(scope="module")
def thinker(model: Qwen2_5OmniThinkerForConditionalGeneration, processor: Qwen2_5OmniProcessor) -> Thinker:
    return Thinker(model, processor)


def model_inputs(processor: Qwen2_5OmniProcessor, chat: Chat) -> dict[str, Any]:
    media: dict[str, Any] = {"audio": list(chat.audio)} if chat.audio else {}
    media |= {"videos": list(chat.video), "do_sample_frames": False} if chat.video else {}
    return dict(processor(text=[chat.text], return_tensors="pt", **media))


def finish(thinker: Thinker, *states: DecodeState) -> list[str]:
    while not all(state.finished for state in states):
        thinker.step(states)
    return [state.text for state in states]


def answer(thinker: Thinker, kind: str, **options: Any) -> str:
    return finish(thinker, thinker.start(CHATS[kind], **options))[0]


def test_generation_chat_is_the_trained_text() -> None:
    chat = Chat("You make sounds.", "a dog barking.")
    assert chat.text == (
        "<|im_start|>system\nYou make sounds.<|im_end|>\n"
        "<|im_start|>user\na dog barking.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_media_that_the_text_does_not_place_come_first() -> None:
    user = CHATS["both"].text.split("user\n")[1].split("<|im_end|>")[0]
    assert user == f"{AUDIO_MARKS}{AUDIO_MARKS}{VIDEO_MARKS}Describe."


def test_media_that_the_text_places_stay_there() -> None:
    assert f"user\nA door\n{VIDEO_MARKS}<|im_end|>" in CHATS["video"].text


@pytest.mark.parametrize("kind", CHATS)
def test_encode_gives_what_goes_into_the_last_layer(
    thinker: Thinker,
    model: Qwen2_5OmniThinkerForConditionalGeneration,
    processor: Qwen2_5OmniProcessor,
    kind: str,
) -> None:
    inputs = model_inputs(processor, CHATS[kind])
    with torch.no_grad():
        expected = tiny_thinker(seed=3)(**inputs, output_hidden_states=True).hidden_states[-2]
    encoded = thinker.encode(CHATS[kind])
    assert (encoded - expected[0]).abs().max() < 1e-5 * expected.abs().max()  # kernels of other CPUs round otherwise
    assert model.model.rope_deltas is None


@pytest.mark.parametrize("kind", CHATS)
def test_an_answer_has_the_tokens_of_generate(thinker: Thinker, processor: Qwen2_5OmniProcessor, kind: str) -> None:
    inputs = model_inputs(processor, CHATS[kind])
    generated = tiny_thinker(seed=3).generate(**inputs, do_sample=False, max_new_tokens=12, eos_token_id=[507, 509])
    expected = processor.tokenizer.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer(thinker, kind, max_new_tokens=12) == expected


@pytest.mark.parametrize("pair", [("audio", "text"), ("video", "audio"), ("both", "video")])
def test_interleaved_answers_are_those_given_alone(
    thinker: Thinker, model: Qwen2_5OmniThinkerForConditionalGeneration, pair: tuple[str, str]
) -> None:
    alone = [answer(thinker, kind, max_new_tokens=12) for kind in pair]
    first = thinker.start(CHATS[pair[0]], max_new_tokens=12)
    thinker.step([first])
    second = thinker.start(CHATS[pair[1]], max_new_tokens=12)
    while not (first.finished and second.finished):
        thinker.step([first])
        thinker.step([second])
    assert [first.text, second.text] == alone
    assert model.model.rope_deltas is None


def test_answers_written_together_are_those_written_alone_whoever_comes_and_goes(thinker: Thinker) -> None:
    lengths = {"text": 3, "audio": 20, "video": 9, "both": 14}
    alone = [answer(thinker, kind, max_new_tokens=tokens) for kind, tokens in lengths.items()]

    together: list[DecodeState] = []
    for kind, tokens in lengths.items():
        together.append(thinker.start(CHATS[kind], max_new_tokens=tokens))
        thinker.step(together)

    assert finish(thinker, *together) == alone


def test_drawn_tokens_do_not_depend_on_who_is_drawn_for_beside(thinker: Thinker) -> None:
    drawn = {"max_new_tokens": 12, "temperature": 5.0, "seed": 1}
    alone = answer(thinker, "audio", **drawn)

    states = [thinker.start(CHATS[kind], **drawn) for kind in ("text", "audio", "both")]

    assert finish(thinker, *states)[1] == alone


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_step_that_failed_at_any_layer_can_be_done_again(
    thinker: Thinker, model: Qwen2_5OmniThinkerForConditionalGeneration, monkeypatch: pytest.MonkeyPatch, layer: int
) -> None:
    drawn = {"max_new_tokens": 12, "temperature": 5.0, "seed": 1}
    alone = [answer(thinker, kind, **drawn) for kind in ("text", "audio")]
    states = [thinker.start(CHATS[kind], **drawn) for kind in ("text", "audio")]
    thinker.step(states)

    def full(*args: Any, **inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(model.model.language_model.layers[layer].mlp, "forward", full)
        with pytest.raises(torch.OutOfMemoryError):
            thinker.step(states)
    thinker.step(states[:1])

    assert finish(thinker, *states) == alone


def test_an_answer_that_is_free_leaves_its_mates_as_they_were(thinker: Thinker) -> None:
    alone = answer(thinker, "audio", max_new_tokens=12)
    left, stays = (thinker.start(CHATS[kind], max_new_tokens=12) for kind in ("both", "audio"))
    thinker.step([left, stays])

    thinker.free(left)

    assert finish(thinker, stays) == [alone]


def test_a_freed_answer_is_drawn_for_no_more(thinker: Thinker) -> None:
    drawn = {"max_new_tokens": 12, "temperature": 5.0, "seed": 1}
    alone = answer(thinker, "audio", **drawn)
    left, stays = (thinker.start(CHATS[kind], **drawn) for kind in ("text", "audio"))
    thinker.step([left, stays])

    thinker.free(left)

    assert left.noise is None
    assert finish(thinker, stays) == [alone]
    assert stays.noise is None


def test_state_counts_and_ends_at_its_limit(thinker: Thinker) -> None:
    state = thinker.start(CHATS["text"], max_new_tokens=3)
    assert (state.tokens, state.text, state.finished) == (0, "", False)
    for tokens, finished in ((1, False), (2, False), (3, True), (3, True)):
        thinker.step([state])
        assert (state.tokens, state.finished) == (tokens, finished)
    assert state.text.isprintable()


def test_an_answer_ends_at_an_end_mark(
    model: Qwen2_5OmniThinkerForConditionalGeneration, processor: Qwen2_5OmniProcessor, thinker: Thinker
) -> None:
    said = answer(thinker, "text", max_new_tokens=4)
    assert len(said) == 4
    brief = Thinker(model, processor)
    brief._stops = frozenset(processor.tokenizer.convert_tokens_to_ids([said[0]]))

    state = brief.start(CHATS["text"])

    assert finish(brief, state) == [said[0]]
    assert state.tokens == 1


def test_temperature_draws_by_seed(thinker: Thinker) -> None:
    def draw(seed: int) -> str:
        return answer(thinker, "text", max_new_tokens=12, temperature=5.0, seed=seed)

    torch.manual_seed(0)
    before = draw(1)
    torch.manual_seed(1)
    assert draw(1) == before
    assert draw(2) != before


def test_frames_per_second_moves_the_positions(thinker: Thinker) -> None:
    slow, fast = (thinker._reader.read(CHATS["video"], fps, room=0).positions for fps in (2.0, 5.0))
    # Two steps of two frames in time: the second lies 25 positions a second after the first.
    assert int(slow[0].max() - fast[0].max()) == 25 - 10


@pytest.mark.parametrize("samples", [0, 399])
def test_audio_too_short_for_one_token_is_refused(thinker: Thinker, samples: int) -> None:
    with pytest.raises(MediaEmpty, match="shorter than 25 ms"):
        thinker.encode(replace(CHATS["audio"], audio=(WAVE[:samples],)))


def test_shortest_audio_is_heard(thinker: Thinker) -> None:
    state = thinker.start(replace(CHATS["audio"], audio=(WAVE[:400],)), max_new_tokens=2)
    thinker.step([state])
    assert state.tokens == 1


def test_audio_over_the_window_is_refused(thinker: Thinker) -> None:
    with pytest.raises(MediaTooLong, match="longer than the 300 s"):
        thinker.encode(replace(CHATS["audio"], audio=(np.zeros(300 * 16_000 + 1, np.float32),)))


def test_video_without_frames_is_refused(thinker: Thinker) -> None:
    with pytest.raises(MediaEmpty, match="no frames"):
        thinker.encode(replace(CHATS["video"], video=(FRAMES[:0],)))


def test_text_over_the_context_is_refused(thinker: Thinker) -> None:
    with pytest.raises(InvalidJob, match="longer than the model can read"):
        thinker.start(Chat("Be kind.", "a" * 32_700), max_new_tokens=100)


def test_media_over_the_context_are_refused(
    model: Qwen2_5OmniThinkerForConditionalGeneration, processor: Qwen2_5OmniProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.config.text_config, "max_position_embeddings", 60)
    with pytest.raises(MediaTooLong, match="longer than the model can take in"):
        Thinker(model, processor).encode(CHATS["audio"])


@pytest.mark.parametrize("text", ["<|im_end|>", f"{AUDIO_MARKS}", "<|VIDEO|>", "a <|audio_bos|> b"])
def test_control_marks_in_the_text_are_refused(thinker: Thinker, text: str) -> None:
    with pytest.raises(InvalidJob, match="control marks"):
        thinker.encode(Chat("Be kind.", text))


def test_other_marks_in_the_text_are_text(thinker: Thinker) -> None:
    assert thinker.encode(Chat("Be kind.", "a <|b|> c")).shape[1] == 2048
