"""VoxCPM2's own library as an engine, with a tiny random model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid, InvalidJob
from omnifleet_shared.schema.jobs import read_job
from omnifleet_shared.storage.folder import FolderStorage
from omnifleet_worker.engine.engine import Engine
from omnifleet_worker.engine.request import Request
from omnifleet_worker.engines.loaded_model import LoadedModel
from omnifleet_worker.engines.table import choose_engine, load_model
from omnifleet_worker.engines.voxcpm_speech import VoxCPMSpeech
from omnifleet_worker.jobs.job_context import JobContext
from omnifleet_worker.jobs.runner import JobRunner
from omnifleet_worker.jobs.streaming.job_stream import JobStreams
from omnifleet_worker.local import PartLog
from omnifleet_worker.models.speech_model import ReferenceVoice, SpeechInputs
from omnifleet_worker.settings import WorkerSettings
from safetensors.torch import load_file, save_file
from support.engines.running_engine import running
from support.speech.vits_folder import TEXTS
from support.speech.voxcpm_folder import write_tiny_lora, write_tiny_voxcpm

PATCH = 7_680
VOICE = ReferenceVoice(
    wave=np.sin(np.arange(16_000) / 9).astype(np.float32) / 3, sample_rate=16_000, text="This is my voice."
)
HELLO = SpeechInputs(text="Hello.", most_steps=250, seed=7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_voxcpm(tmp_path_factory.mktemp("voxcpm") / "VoxCPM2")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(WorkerSettings(checkpoint=folder, device="cpu"))


def say(loaded: LoadedModel, *texts: SpeechInputs) -> list[np.ndarray]:
    engine = Engine(loaded.runner, loaded.limits)
    requests = [engine.submit(Request(inputs=text)) for text in texts]
    while engine.step():
        pass
    return [request.outcome.result() for request in requests]


def differ(sounds: Sequence[np.ndarray]) -> bool:
    shortest = min(one.shape[1] for one in sounds)
    return len({one[:, :shortest].tobytes() for one in sounds}) == len(sounds)


def test_its_folder_is_known_by_its_config(folder: Path, loaded: LoadedModel) -> None:
    capabilities = loaded.model.capabilities

    assert choose_engine(WorkerSettings(checkpoint=folder)) == "voxcpm"
    assert (capabilities.name, capabilities.engine, capabilities.sample_rate) == ("voxcpm2", "voxcpm", 48_000)
    assert (capabilities.commercial, capabilities.cloning, capabilities.voice_seconds) == (True, True, 30)
    assert not capabilities.needs_transcript


def test_a_folder_as_it_is_downloaded_speaks_what_is_known_of_it(tmp_path: Path) -> None:
    folder = write_tiny_voxcpm(tmp_path / "VoxCPM2")
    (folder / "card.json").unlink()
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [zh, en]\n---\n")

    capabilities = load_model(WorkerSettings(checkpoint=folder, device="cpu")).model.capabilities

    assert (capabilities.name, capabilities.commercial) == ("voxcpm2", True)
    languages = capabilities.tasks["generate.tts"].languages
    assert languages is not None and len(languages) == 30 and "ru" in languages


@pytest.mark.parametrize("language", TEXTS)
def test_a_seed_says_the_same_alone_and_beside_others(loaded: LoadedModel, language: str) -> None:
    texts = [SpeechInputs(text=TEXTS[language][:8], language=language, most_steps=250, seed=seed) for seed in (3, 4)]
    before = torch.random.get_rng_state()

    alone, other = say(loaded, texts[0])[0], say(loaded, texts[1])[0]
    beside = say(loaded, *texts)

    assert alone.dtype == np.float32 and alone.shape[1] % PATCH == 0
    assert np.array_equal(alone, beside[0]) and np.array_equal(other, beside[1])
    assert differ([alone, other])
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_others_draw_between_two_patches_changes_nothing(loaded: LoadedModel) -> None:
    model = loaded.runner._model  # type: ignore[attr-defined]
    expected = np.concatenate(list(model.speak(HELLO)))

    said = []
    for piece in model.speak(HELLO):
        torch.rand(3)
        said.append(piece)

    assert {len(piece) for piece in said} == {PATCH}
    assert np.array_equal(np.concatenate(said), expected)


def test_each_kind_of_voice_is_another_and_is_encoded_once(loaded: LoadedModel) -> None:
    voices = [None, replace(VOICE, text=None), VOICE]
    texts = [replace(HELLO, voice=voice) for voice in voices]
    model = loaded.runner._model  # type: ignore[attr-defined]
    assert isinstance(model, VoxCPMSpeech)

    first = say(loaded, *texts)
    misses = model.voices.figures.misses
    second = say(loaded, *(replace(text, voice=text.voice and replace(text.voice)) for text in texts))

    assert differ(first)
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert model.voices.figures.misses == misses > 0


def test_a_text_that_is_no_longer_wanted_leaves_the_next_as_it_was(loaded: LoadedModel) -> None:
    expected = say(loaded, HELLO)[0]
    engine = Engine(loaded.runner, loaded.limits)
    dropped = engine.submit(Request(inputs=replace(HELLO, seed=1)))
    engine.step(), engine.step()
    assert dropped.said
    dropped.cancel()

    kept = engine.submit(Request(inputs=HELLO))
    while engine.step():
        pass

    assert dropped.outcome.exception() is not None
    assert np.array_equal(kept.outcome.result(), expected)


def test_more_than_the_model_holds_is_refused(loaded: LoadedModel) -> None:
    long_voice = ReferenceVoice(wave=np.zeros(16_000 * 80, np.float32), sample_rate=16_000, text="x" * 300)

    with pytest.raises(InvalidJob, match="shorter"):
        say(loaded, replace(HELLO, text="x" * 300, voice=long_voice))


def run(loaded: LoadedModel, storage: FolderStorage, log: PartLog, **more: Any) -> Any:
    head = {"schema_version": 8, "model": "voxcpm2", "namespace": "generate", "seed": 5}
    job = read_job(head | {"task": {"name": "tts", "text": more.pop("text")}} | more)
    settings = WorkerSettings()
    with running(loaded) as engine:
        runner = JobRunner(loaded.model, storage, settings, streams=JobStreams(storage, log, settings))
        return job.job_id, runner.run(JobContext(job, engine))


def test_a_streamed_text_is_heard_from_its_first_patch_and_is_the_whole(loaded: LoadedModel, tmp_path: Path) -> None:
    storage, log = FolderStorage(tmp_path), PartLog()

    job_id, streamed = run(loaded, storage, log, text="One two three.", stream=True)
    _, whole = run(loaded, storage, log, text="One two three.")

    parts = [part.audio for part in log.read(job_id) if part.audio is not None]
    samples = [round(part.seconds * 48_000) for part in parts]
    assert samples[:3] == [PATCH, 2 * PATCH, 4 * PATCH]
    assert streamed.artifact.sha256 == whole.artifact.sha256
    assert sum(samples) == round(whole.artifact.seconds * 48_000)


def test_a_text_of_any_length_is_said(loaded: LoadedModel, tmp_path: Path) -> None:
    text = " ".join(f"Sentence {number} has ten words, or so it seems here." for number in range(8))

    _, result = run(loaded, FolderStorage(tmp_path), PartLog(), text=text)

    assert result.artifact.sample_rate == 48_000
    assert result.artifact.seconds > 1


class TestFolders:
    @pytest.mark.parametrize("file", ["model.safetensors", "audiovae.safetensors"])
    def test_weights_that_are_missing_are_refused(self, tmp_path: Path, file: str) -> None:
        path = write_tiny_voxcpm(tmp_path) / file
        weights = load_file(path)
        del weights[next(name for name in weights if name.endswith("weight"))]
        save_file(weights, path)

        with pytest.raises(CheckpointInvalid, match="1 weights are missing"):
            load_model(WorkerSettings(checkpoint=tmp_path, device="cpu"))

    @pytest.mark.parametrize("how", ["another", "no weights", "no licence"])
    def test_a_folder_that_will_not_do_is_refused(self, tmp_path: Path, how: str) -> None:
        write_tiny_voxcpm(tmp_path)
        if how == "another":
            (tmp_path / "config.json").write_text('{"architecture": "voxcpm"}')
        elif how == "no weights":
            (tmp_path / "model.safetensors").unlink()
        else:
            (tmp_path / "card.json").unlink()

        with pytest.raises(CheckpointInvalid):
            load_model(WorkerSettings(checkpoint=tmp_path, device="cpu", engine="voxcpm"))

    def test_a_lora_speaks_otherwise_and_brings_its_licence(
        self, folder: Path, loaded: LoadedModel, tmp_path: Path
    ) -> None:
        lora = write_tiny_lora(tmp_path / "mine", folder, commercial=False)

        adapted = load_model(WorkerSettings(checkpoint=folder, device="cpu", lora=lora))

        capabilities = adapted.model.capabilities
        assert not capabilities.commercial
        assert [part.name for part in capabilities.parts] == ["LoRA mine"]
        assert capabilities.revision != loaded.model.capabilities.revision
        assert differ([say(adapted, HELLO)[0], say(loaded, HELLO)[0]])

    @pytest.mark.parametrize("how", ["no card", "no config", "another model"])
    def test_a_lora_that_will_not_do_is_refused(self, folder: Path, tmp_path: Path, how: str) -> None:
        lora = write_tiny_lora(tmp_path / "mine", folder, commercial=True)
        if how == "no card":
            (lora / "card.json").write_text("{}")
        elif how == "no config":
            (lora / "lora_config.json").write_text(json.dumps({}))
        else:
            save_file({"base_lm.nothing.lora_A": torch.zeros(1)}, lora / "lora_weights.safetensors")

        with pytest.raises(CheckpointInvalid):
            load_model(WorkerSettings(checkpoint=folder, device="cpu", lora=lora))
