"""What the demo's checkpoint is trained on and from: grains, their VAE, words, prompts, and the classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demo.training.filter_bank import grain_autoencoder
from demo.training.grains import GRAINS, LEVEL, render
from demo.training.listener import Listener
from demo.training.measure import si_sdr
from demo.training.parts import (
    DEPTH,
    HEADS,
    MEANINGS,
    WIDTH,
    WORDS,
    fitted_projection,
    frame_audio_encoder,
    meanings,
    untrained_transformer,
    word_processor,
)
from demo.training.prompts import HALF, answer, ask, is_held_out
from demo.training.sounds import NAMES, TEXTS, make

FRAMES = 24


@pytest.mark.parametrize("names", [("low",), ("low", "rain"), ("ah", "siren", "surf")])
def test_vae_codes_sounds_of_grains_without_loss(names: tuple[str, ...]) -> None:
    random = np.random.default_rng(3)
    levels = sum((make(name, random, FRAMES) for name in names), np.zeros((FRAMES, GRAINS)))
    levels[[0, -1]] = 0
    wave = torch.from_numpy(render(levels)).float()
    vae = grain_autoencoder()
    with torch.inference_mode():
        latents = vae.encode(wave.expand(1, 2, -1)).latent_dist.mode()
        decoded = vae.decode(latents).sample
    assert torch.allclose(latents[0], torch.from_numpy(LEVEL * levels.T).float(), atol=1e-4)
    assert torch.allclose(decoded[0], wave.expand(2, -1), atol=1e-4)


def test_every_word_is_one_token_and_text_survives() -> None:
    tokenizer = word_processor().tokenizer
    assert all(len(tokenizer.tokenize(f" {word}")) == 1 for word in WORDS)
    text = "a low tone, then Rain on 7 roofs"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_all_texts_are_made_of_the_words() -> None:
    said = {word for texts in TEXTS.values() for text in texts for word in text.split()}
    assert said <= set(WORDS)


def test_words_of_one_sound_mean_the_same_and_know_what_went_before() -> None:
    drop, low, then, birds, chirps = meanings(["drop", " low", " then", " birds", " chirps"])

    assert torch.equal(birds, chirps) and not torch.equal(birds, low)
    assert drop[: len(NAMES) + 1].sum() == then[: len(NAMES) + 1].sum() == 0
    assert birds.tolist()[len(NAMES) :] == [1, 1, 1, 0, 0]
    assert low.tolist()[len(NAMES) :] == [1, 0, 1, 0, 0]


def test_fitted_projection_reads_meanings_off_states_that_hold_them() -> None:
    random = torch.Generator().manual_seed(0)
    wanted = torch.randint(2, (500, MEANINGS), generator=random).float()
    states = wanted @ torch.randn(MEANINGS, 64, generator=random) + 3
    projection = torch.nn.Linear(64, 768)
    fitted_projection(states, wanted, projection)
    features = projection(torch.nn.functional.rms_norm(states, (64,), eps=1e-6))
    assert (features[:, :MEANINGS] - wanted).abs().mean() < 0.15
    assert not features[:, MEANINGS:].any()


def test_untrained_transformer_tells_latents_what_is_named_first_and_after_then() -> None:
    transformer = untrained_transformer(0)
    context = torch.zeros(1, 6, 768)
    context[0, :, :MEANINGS] = meanings(["a", " low", " then", " heavy", " rain", "."])
    attention = transformer.blocks[1].attn2
    hidden = torch.zeros(1, 1, WIDTH)
    hidden[..., WIDTH - 1] = 2
    told = attention(hidden, *attention.project_context(transformer.context_embedder(context)), None)[0, 0]
    first, second = told[WIDTH // 2 :][:MEANINGS], told[WIDTH // 2 + MEANINGS :][:MEANINGS]
    assert NAMES[int(first[: len(NAMES)].argmax())] == "low"
    assert NAMES[int(second[: len(NAMES)].argmax())] == "rain"


def test_untrained_transformer_looks_at_the_prompt_of_the_same_frame() -> None:
    block = untrained_transformer(0).blocks[1]
    hidden = torch.zeros(1, 480, WIDTH)
    hidden[..., WIDTH - 1] = 3
    rotary = untrained_transformer(0)._rotary(hidden)
    heads = block.attn1.to_qkv(hidden)[0].unflatten(-1, (3, HEADS, -1))[:, :2, 0]
    query, key = (_turned(heads[:, part], rotary) for part in range(2))
    assert DEPTH > 1 and (query @ key.T)[244:].argmax(dim=1).tolist() == list(range(8, 480 - 236))


def test_audio_tokens_tell_where_they_are_also_in_silence() -> None:
    tokens = frame_audio_encoder()(None)
    assert bool((tokens[1:, 99 + 3].diff() > 0).all())


def test_held_out_pairs_are_not_learned_from() -> None:
    random = np.random.default_rng(0)
    asked = [ask(random, held_out=False) for _ in range(300)]
    pairs = [one.names for one in asked if one.form == "then"]
    assert is_held_out("low", "rain") and not any(is_held_out(*names) for names in pairs)
    assert {one.form for one in asked} == {"one", "then", "and"}
    assert all(answer(one, random).shape == (236, GRAINS) for one in asked[:10])


def test_listener_tells_made_sounds_apart() -> None:
    listener, random = Listener(examples=4), np.random.default_rng(5)
    heard = [listener.hear(render(make(name, random, HALF)), 1) == {name} for name in NAMES for _ in range(2)]
    assert np.mean(heard) > 0.9
    assert np.mean([listener.hear(render(make("rain", random, HALF)), 1) == {"low"}]) == 0


def test_si_sdr_ignores_scale_and_counts_what_is_left() -> None:
    right, other = np.array([1.0, 0, 0, 0]), np.array([0, 1.0, 0, 0])
    assert si_sdr(3 * right + 3 * other, right) == pytest.approx(0, abs=1e-6)
    assert si_sdr(10 * right + other, right) == pytest.approx(20, abs=1e-6)


def _turned(features: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    first, second = features.chunk(2, dim=-1)
    return features * rotary[0] + torch.cat([-second, first], dim=-1) * rotary[1]
