"""The tiny checkpoint: written, loaded offline, and run through every stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from omnifleet_worker.models.audio_omni.chat import VIDEO_MARKS, Chat
from omnifleet_worker.models.audio_omni.pipeline import AudioOmniPipeline
from omnifleet_worker.models.audio_omni.sampling import prepare_latents
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline, tiny_vocab, write_tiny_checkpoint

RANDOM = np.random.default_rng(1)
WAVE = (RANDOM.standard_normal(16_000) * 0.1).astype(np.float32)
FRAMES = RANDOM.integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Iterator[AudioOmniPipeline]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield AudioOmniPipeline.from_pretrained(folder)


def test_checkpoint_stays_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 130e6


def test_card_says_what_it_is(folder: Path) -> None:
    card = json.loads((folder / "card.json").read_text())
    assert (card["name"], card["revision"]) == ("audio-omni-tiny", "tiny-seed0")
    assert {"licence", "languages"} <= card.keys()


def test_seed_decides_the_weights(pipeline: AudioOmniPipeline) -> None:
    same, other = tiny_pipeline(0), tiny_pipeline(1)
    for component in ("transformer", "vae", "thinker", "speech_encoder"):
        loaded = getattr(pipeline, component).state_dict()
        expected = getattr(same, component).state_dict()
        assert all(torch.equal(loaded[name].float(), expected[name].float()) for name in expected)
    assert not torch.equal(same.transformer.proj_in.weight, other.transformer.proj_in.weight)


def test_making_it_leaves_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    tiny_pipeline(5)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_vocabulary_fits_the_speech_encoder_and_its_languages(pipeline: AudioOmniPipeline) -> None:
    vocab = tiny_vocab()
    assert vocab[0] == " "
    assert len(vocab) == len(set(vocab)) <= 2545
    spoken = "Hello, world! 你好，世界。 こんにちは Ça coûte 5€ Größe"
    assert pipeline.speech_tokenizer.unknown_share(spoken) == 0.0
    assert pipeline.speech_tokenizer.unknown_share("Привет") == 1.0


def test_prompts_have_the_sentences_of_every_task(pipeline: AudioOmniPipeline) -> None:
    assert pipeline.prompts["system"].keys() == {"EDITING", "T2A", "T2M", "TTS", "UNDERSTANDING", "V2A", "V2M"}
    assert "{desc}" in pipeline.prompts["edit"]["Add"]
    assert "{source}" in pipeline.prompts["edit"]["Style"] and "{target}" in pipeline.prompts["edit"]["Style"]
    assert pipeline.prompts["transcribe"].keys() == {"system", "user"}


@pytest.mark.parametrize(
    "chat",
    [
        Chat("Make a sound.", "rain."),
        Chat("Listen.", "What is it?", audio=(WAVE,)),
        Chat("Watch.", f"rain\n{VIDEO_MARKS}", video=(FRAMES,)),
    ],
    ids=["text", "audio", "video"],
)
def test_chats_become_context_and_readable_answers(pipeline: AudioOmniPipeline, chat: Chat) -> None:
    context = pipeline.encode_prompt(chat)
    assert context.shape[1] == 768 and bool(context.isfinite().all())
    session = pipeline.chatter.start(chat, max_new_tokens=8)
    while not session.finished:
        pipeline.chatter.step([session])
    assert session.text and session.text.isascii() and session.text.isprintable()


def test_speech_and_audio_become_tokens(pipeline: AudioOmniPipeline) -> None:
    assert pipeline.encode_speech("Hello 世界").shape == (256, 768)
    assert pipeline.encode_audio(WAVE).shape == (236, 768)


def test_latents_decode_to_audible_noise(pipeline: AudioOmniPipeline) -> None:
    latents = prepare_latents(0).reshape(1, 64, 236)
    audio = pipeline.decode_latents(latents)
    assert audio.shape == (1, 2, 483_328)
    assert bool(audio.isfinite().all()) and 0.01 < float(audio.std()) < 1
    # Not a hum or a constant: most of the energy lies where people hear, spread over many frequencies.
    power = torch.fft.rfft(audio[0, 0]).abs() ** 2
    assert float(power.max() / power.sum()) < 0.05
