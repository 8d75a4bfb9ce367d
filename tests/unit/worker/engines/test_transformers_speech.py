"""transformers' own text-to-speech classes as an engine, with a tiny random VITS."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid, LanguageNotSupported
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.table import load_model
from omnifleet_worker.models.speech_model import SpeechInputs
from omnifleet_worker.settings import WorkerSettings
from support.speech.vits_folder import TEXTS, write_tiny_vits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vits(tmp_path_factory.mktemp("vits") / "tiny-vits", licence="apache-2.0")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(WorkerSettings(checkpoint=folder))


def say(loaded: LoadedModel, *texts: SpeechInputs) -> list[np.ndarray]:
    engine = Engine(loaded.runner, loaded.limits)
    requests = [engine.submit(Request(inputs=text)) for text in texts]
    while engine.step():
        pass
    return [request.outcome.result() for request in requests]


def test_its_card_is_that_of_the_hub(loaded: LoadedModel, folder: Path, tmp_path: Path) -> None:
    capabilities = loaded.model.capabilities

    assert (capabilities.name, capabilities.engine, capabilities.sample_rate) == ("tiny-vits", "transformers", 16_000)
    assert (capabilities.licence, capabilities.commercial_use) == ("apache-2.0", True)
    assert capabilities.tasks["generate.tts"].languages == ("ru", "zh", "ar", "hi")
    assert not capabilities.cloning

    forbidding = load_model(WorkerSettings(checkpoint=write_tiny_vits(tmp_path, licence="cc-by-nc-4.0")))
    assert not forbidding.model.capabilities.commercial


def test_the_records_own_card_comes_first(tmp_path: Path) -> None:
    card = {"name": "mms-rus", "licence": "CC BY-NC 4.0", "tasks": {"generate.tts": {"languages": ["ru"]}}}
    (write_tiny_vits(tmp_path) / "card.json").write_text(json.dumps(card | {"revision": "of-may"}))

    capabilities = load_model(WorkerSettings(checkpoint=tmp_path)).model.capabilities

    assert (capabilities.name, capabilities.revision, capabilities.commercial_use) == ("mms-rus", "of-may", False)
    assert capabilities.tasks["generate.tts"].languages == ("ru",)


@pytest.mark.parametrize("language", TEXTS)
def test_a_seed_says_the_same_alone_and_beside_others(loaded: LoadedModel, language: str) -> None:
    texts = [SpeechInputs(text=TEXTS[language], language=language, seed=seed) for seed in (3, 4)]
    before = torch.random.get_rng_state()

    alone, other = say(loaded, texts[0])[0], say(loaded, texts[1])[0]
    beside = say(loaded, texts[1], texts[0])

    assert alone.shape[0] == 1 and alone.shape[1] > 1000 and alone.dtype == np.float32
    assert np.array_equal(alone, beside[1])
    assert np.array_equal(other, beside[0])
    assert alone.shape != other.shape or not np.array_equal(alone, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_text_without_sounds_that_it_knows_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(LanguageNotSupported):
        say(loaded, SpeechInputs(text="!", seed=1))


def damaged(folder: Path, how: str) -> Path:
    if how == "no card":
        (folder / "README.md").unlink()
    elif how == "no licence":
        (folder / "README.md").write_text("---\nlanguage: ru\n---\n")
    elif how == "no weights":
        (folder / "model.safetensors").unlink()
    elif how == "another model":
        (folder / "config.json").write_text('{"model_type": "bert"}')
    else:
        (folder / "card.json").write_text("{")
    return folder


@pytest.mark.parametrize("how", ["no card", "no licence", "no weights", "another model", "no JSON"])
def test_a_folder_that_will_not_do_is_refused_with_a_reason(tmp_path: Path, how: str) -> None:
    with pytest.raises(CheckpointInvalid):
        load_model(WorkerSettings(checkpoint=damaged(write_tiny_vits(tmp_path), how)))
