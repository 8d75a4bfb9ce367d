"""OmniVoice's own library as an engine, with a tiny random model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidJob, LanguageNotSupported, LicenceRefused
from omnifleet_shared.schema.jobs import Job, read_job
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.omnivoice_speech import OmniVoiceSpeech
from omnifleet_worker.engines.table import choose_engine, load_model
from omnifleet_worker.models.speech_model import ReferenceVoice, SpeechInputs
from omnifleet_worker.settings import WorkerSettings
from safetensors.torch import load_file, save_file
from support.speech.omnivoice_folder import write_tiny_omnivoice
from support.speech.vits_folder import TEXTS

VOICE = ReferenceVoice(
    wave=np.sin(np.arange(24_000) / 9).astype(np.float32) / 3, sample_rate=24_000, text="This is my voice."
)
HELLO = SpeechInputs(text="Hello.", language="en", seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_omnivoice(tmp_path_factory.mktemp("omnivoice") / "OmniVoice")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(WorkerSettings(checkpoint=folder, device="cpu"))


def say(loaded: LoadedModel, *texts: SpeechInputs) -> list[np.ndarray]:
    engine = Engine(loaded.runner, loaded.limits)
    requests = [engine.submit(Request(inputs=text)) for text in texts]
    while engine.step():
        pass
    return [request.outcome.result() for request in requests]


def tts(task: dict[str, Any] | None = None, **more: Any) -> Job:
    head = {"schema_version": 8, "model": "omnivoice", "namespace": "generate", "seed": 5}
    return read_job(head | {"task": {"name": "tts", "text": "你好", **(task or {})}} | more)


def test_its_folder_is_known_and_its_weights_are_for_no_commerce(folder: Path, loaded: LoadedModel) -> None:
    capabilities = loaded.model.capabilities

    assert choose_engine(WorkerSettings(checkpoint=folder)) == "omnivoice"
    assert (capabilities.name, capabilities.sample_rate) == ("omnivoice", 24_000)
    with pytest.raises(LicenceRefused):
        loaded.model.validate_job(tts(commercial=True))


def test_it_knows_the_languages_of_its_library_and_no_others(loaded: LoadedModel) -> None:
    languages = loaded.model.capabilities.tasks["generate.tts"].languages

    assert languages is not None and len(languages) > 600
    assert {"ru", "zh", "yue", "ar", "hi"} <= set(languages)
    loaded.model.validate_job(tts(language="zh-yue"))
    with pytest.raises(LanguageNotSupported):
        loaded.model.validate_job(tts(language="tlh"))


def test_a_voice_comes_with_its_words(loaded: LoadedModel) -> None:
    ref = {"uri": "file:///voice.wav", "sha256": "0" * 64, "bytes": 9}

    with pytest.raises(InvalidJob, match="ref_text"):
        loaded.model.validate_job(tts({"ref": ref}))


@pytest.mark.parametrize("language", TEXTS)
def test_a_seed_says_the_same_alone_and_beside_others(loaded: LoadedModel, language: str) -> None:
    texts = [SpeechInputs(text=TEXTS[language], language=language, seed=seed) for seed in (3, 4)]
    before = torch.random.get_rng_state()

    alone, other = say(loaded, texts[0])[0], say(loaded, texts[1])[0]
    beside = say(loaded, *texts)

    assert alone.dtype == np.float32 and alone.shape[1] > 1000
    assert np.array_equal(alone, beside[0]) and np.array_equal(other, beside[1])
    assert not np.array_equal(alone, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_speed_shortens_what_is_said(loaded: LoadedModel) -> None:
    slow, plain, fast = say(loaded, *(replace(HELLO, speed=speed) for speed in (0.5, 1.0, 2.0)))

    assert fast.shape[1] < plain.shape[1] < slow.shape[1]
    # 0.1 s of silence at each end are the library's, and no speech; the rest is whole frames of 40 ms.
    assert slow.shape[1] - 4800 == pytest.approx(2 * (plain.shape[1] - 4800), abs=2 * 960)


@pytest.mark.parametrize("seconds", [0.5, 2.03, 30.0])
def test_a_text_takes_exactly_as_long_as_it_is_told(loaded: LoadedModel, seconds: float) -> None:
    (said,) = say(loaded, replace(HELLO, seconds=seconds))

    assert said.shape[1] == round(24_000 * seconds)
    assert np.abs(said[0, : len(said[0]) // 2]).max() > 0 and np.abs(said[0, len(said[0]) // 2 :]).max() > 0


def test_its_card_says_how_long_a_text_may_be_told_to_take(loaded: LoadedModel) -> None:
    loaded.model.validate_job(tts({"seconds": 30.0}, schema_version=9))

    with pytest.raises(InvalidJob, match="at most 30 s"):
        loaded.model.validate_job(tts({"seconds": 30.5}, schema_version=9))


def test_cantonese_is_not_said_as_mandarin(loaded: LoadedModel) -> None:
    said = [say(loaded, SpeechInputs(text="你好", language=language, seed=3))[0] for language in ("zh", "yue")]

    assert not np.array_equal(*said)


def test_a_voice_changes_what_is_said_and_is_encoded_once(loaded: LoadedModel) -> None:
    model = loaded.runner._model  # type: ignore[attr-defined]
    assert isinstance(model, OmniVoiceSpeech)
    spoken = replace(HELLO, voice=VOICE)

    plain, first = say(loaded, HELLO, spoken)
    misses = model.voices.figures.misses
    (second,) = say(loaded, replace(spoken, voice=replace(VOICE)))

    assert first.shape != plain.shape or not np.array_equal(first, plain)
    assert np.array_equal(first, second)
    assert model.voices.figures.misses == misses == 1


@pytest.mark.parametrize("how", ["no codec", "a weight of the model", "a weight of the codec"])
def test_a_folder_that_is_not_whole_is_refused(tmp_path: Path, how: str) -> None:
    write_tiny_omnivoice(tmp_path)
    if how == "no codec":
        (tmp_path / "audio_tokenizer").rename(tmp_path / "elsewhere")
    else:
        path = tmp_path / ("audio_tokenizer" if how.endswith("codec") else "") / "model.safetensors"
        weights = load_file(path)
        del weights[next(name for name in weights if name.endswith("weight"))]
        save_file(weights, path, {"format": "pt"})

    with pytest.raises(CheckpointInvalid):
        load_model(WorkerSettings(checkpoint=tmp_path, device="cpu"))
