"""The pipeline: its folder on disk, and its stages on the tiny checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_worker.models.audio_omni.chat import Chat
from omnifleet_worker.models.audio_omni.pipeline import COMPONENTS, AudioOmniPipeline
from omnifleet_worker.models.audio_omni.tiny import tiny_pipeline
from safetensors.torch import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def pipeline() -> AudioOmniPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def saved(pipeline: AudioOmniPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tiny") / "checkpoint"
    pipeline.save_pretrained(root)
    return root


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """The saved checkpoint, to be damaged; of links, since most of it is large and stays as it is."""
    shutil.copytree(saved, tmp_path / "copy", copy_function=lambda source, target: Path(target).symlink_to(source))
    return tmp_path / "copy"


def rewrite(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)


def test_a_saved_pipeline_comes_back_the_same(pipeline: AudioOmniPipeline, saved: Path) -> None:
    loaded = AudioOmniPipeline.from_pretrained(saved)
    assert (loaded.prompts, loaded.vocab, loaded.card) == (pipeline.prompts, pipeline.vocab, pipeline.card)
    for name in set(COMPONENTS) - {"processor"}:
        wanted, found = getattr(pipeline, name).state_dict(), getattr(loaded, name).state_dict()
        assert wanted.keys() == found.keys()
        assert all(torch.equal(found[key], wanted[key].to(found[key])) for key in wanted)
    chat = Chat(system="Speak.", user="hello")
    assert loaded.processor(text=[chat.text])["input_ids"] == pipeline.processor(text=[chat.text])["input_ids"]
    assert torch.equal(loaded.encode_audio(np.ones(9)), pipeline.encode_audio(np.ones(9)))
    assert torch.equal(loaded.encode_speech("a b"), pipeline.encode_speech("a b"))


def test_the_dtype_is_that_of_the_two_large_parts(saved: Path) -> None:
    loaded = AudioOmniPipeline.from_pretrained(saved, dtype=torch.bfloat16)
    assert loaded.transformer.dtype == loaded.thinker.dtype == torch.bfloat16
    assert loaded.vae.dtype == loaded.speech_encoder.dtype == loaded.omni_projection.dtype == torch.float32
    prompt = loaded.encode_prompt(Chat(system="Speak.", user="hello"))
    assert prompt.dtype == torch.float32
    conditioning = loaded.encode_conditioning(
        prompt, loaded.encode_speech(None), loaded.encode_audio(None), loaded.encode_sync(None)
    )
    assert conditioning.context.length == len(prompt) + 256
    assert conditioning.global_embeds.dtype == torch.bfloat16


def test_the_stages_have_the_models_shapes(pipeline: AudioOmniPipeline) -> None:
    assert pipeline.encode_speech("hello").shape == (256, 768)
    assert pipeline.encode_audio(np.zeros(500_000, np.float32)).shape == (236, 768)
    assert pipeline.encode_sync(np.zeros((240, 768), np.float32)).shape == (128, 768)


def test_no_audio_is_silence(pipeline: AudioOmniPipeline) -> None:
    assert torch.equal(pipeline.encode_audio(None), pipeline.encode_audio(torch.zeros(100)))


def test_longer_prompts_are_interpolated(pipeline: AudioOmniPipeline) -> None:
    with torch.inference_mode():
        assert pipeline.omni_projection(torch.ones(2100, 2048)).shape == (2048, 768)


def test_each_clip_is_decoded_as_if_alone(pipeline: AudioOmniPipeline) -> None:
    latents = torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 5])[:, None, None]
    audio = pipeline.decode_latents(latents)
    assert audio.shape == (2, 2, 3 * 2048)
    assert audio.abs().amax(dim=(1, 2)).tolist() == [1, 1]
    assert torch.allclose(audio[1:], pipeline.decode_latents(latents[1:]), atol=1e-4)


@pytest.mark.parametrize(
    "missing", ["model_index.json", "vocab.txt", "card.json", "vae/config.json", "processor/processor_config.json"]
)
def test_a_missing_file_is_named(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(CheckpointInvalid, match=missing):
        AudioOmniPipeline.from_pretrained(copy)


@pytest.mark.parametrize("missing", [f"transformer/{WEIGHTS}", "thinker/model.safetensors"])
def test_missing_weights_name_their_component(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(CheckpointInvalid, match=Path(missing).parent.name):
        AudioOmniPipeline.from_pretrained(copy)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="nowhere"):
        AudioOmniPipeline.from_pretrained(tmp_path / "nowhere")


def test_a_truncated_weights_file_is_refused(copy: Path) -> None:
    weights = copy / "sync_encoder" / WEIGHTS
    beginning = weights.read_bytes()[:1000]
    weights.unlink()
    weights.write_bytes(beginning)
    with pytest.raises(CheckpointInvalid, match="sync_encoder"):
        AudioOmniPipeline.from_pretrained(copy)


@pytest.mark.parametrize(("folder", "file"), [("sync_encoder", WEIGHTS), ("thinker", "model.safetensors")])
def test_a_missing_tensor_is_refused(copy: Path, folder: str, file: str) -> None:
    tensors = load_file(copy / folder / file)
    tensors.pop(sorted(tensors)[0])
    (copy / folder / file).unlink()
    save_file(tensors, copy / folder / file, metadata={"format": "pt"})
    with pytest.raises(CheckpointInvalid, match=f"{folder} has missing keys"):
        AudioOmniPipeline.from_pretrained(copy)


def test_another_pipelines_folder_is_refused(copy: Path) -> None:
    rewrite(copy / "model_index.json", json.dumps({"_class_name": "StableAudioPipeline"}))
    with pytest.raises(CheckpointInvalid, match="StableAudioPipeline"):
        AudioOmniPipeline.from_pretrained(copy)


def test_a_vocabulary_beyond_the_embedding_is_refused(copy: Path) -> None:
    rewrite(copy / "vocab.txt", "a\n" * 2546)
    with pytest.raises(CheckpointInvalid, match=r"vocab\.txt"):
        AudioOmniPipeline.from_pretrained(copy)


def test_an_unreadable_card_is_refused(copy: Path) -> None:
    rewrite(copy / "card.json", "{")
    with pytest.raises(CheckpointInvalid, match=r"card\.json"):
        AudioOmniPipeline.from_pretrained(copy)
