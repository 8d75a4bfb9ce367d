"""What was learned, in the forms that others read: peft's adapter, and a checkpoint that a worker serves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from omnifleet.local import LocalModel
from omnifleet_shared.errors import AdapterInvalid, CheckpointInvalid, InvalidTrainingConfig
from omnifleet_worker.checkpoint.manifest import all_faults, record_files, write_manifest
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from omnifleet_worker.training.batches import Batch
from omnifleet_worker.training.flow_matching import seeded
from omnifleet_worker.training.merge import merge
from omnifleet_worker.training.run import train
from omnifleet_worker.training.velocity_model import VelocityModel
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from .conftest import MakeConfig

FULL = {
    "method": "full",
    "steps": 2,
    "gradient_accumulation": 2,
    "gradient_checkpointing": True,
    "precision": "bfloat16",
    "loader_workers": 1,
    "learning_rate": 0.001,
}


@pytest.fixture
def adapter(make_config: MakeConfig) -> Path:
    config = make_config(steps=3)
    train(config)
    return config.out / "adapter"


@torch.no_grad()
def velocity(transformer: AudioOmniTransformer | PeftModel) -> Tensor:
    with seeded(5):
        mask, times = torch.ones(2, 30, dtype=torch.bool), torch.tensor([0.2, 0.8])
        batch = Batch(("add",) * 2, torch.randn(2, 30, 768), mask, torch.randn(2, 364, 768), torch.randn(2, 64, 236))
    return VelocityModel(transformer).eval()(batch.latents, times, batch.context, mask, batch.global_tokens)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def load(checkpoint: Path) -> AudioOmniTransformer:
    model = AudioOmniTransformer.from_pretrained(checkpoint / "transformer")
    assert isinstance(model, AudioOmniTransformer)
    return model


def test_peft_loads_the_adapter_and_merged_it_gives_the_same(adapter: Path, checkpoint: Path, tmp_path: Path) -> None:
    merge(checkpoint, adapter, tmp_path / "merged")

    loaded = velocity(PeftModel.from_pretrained(load(checkpoint), str(adapter), torch_device="cpu"))
    merged = velocity(load(tmp_path / "merged"))

    assert difference(loaded, velocity(load(checkpoint))) > 0.01
    assert difference(loaded, merged) <= 1e-5 * float(loaded.abs().max())


def test_a_worker_serves_the_merged_checkpoint_under_its_own_revision(
    adapter: Path, checkpoint: Path, tmp_path: Path
) -> None:
    merge(checkpoint, adapter, tmp_path / "merged")

    with LocalModel(tmp_path / "merged", device="cpu") as omni, LocalModel(checkpoint, device="cpu") as base:
        jobs = [model.generate("t2a", "a bell", seconds=1, steps=2, seed=3) for model in (omni, base)]
        merged, plain = (job.result(60) for job in jobs)
        sounds = [result.audio.read() for result in (merged, plain)]

    assert sounds[0] != sounds[1]
    assert merged.model.revision.startswith(f"{plain.model.revision}+")


def test_a_transformer_that_was_trained_as_a_whole_takes_the_place_of_the_old_one(
    make_config: MakeConfig, checkpoint: Path, tmp_path: Path
) -> None:
    config = make_config(**FULL)
    train(config)

    merge(checkpoint, config.out / "transformer", tmp_path / "merged")

    trained = load_file(config.out / "transformer/diffusion_pytorch_model.safetensors")
    merged = load_file(tmp_path / "merged/transformer/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(merged[name], weight) for name, weight in trained.items())
    assert {weight.dtype for weight in trained.values()} == {torch.float32}
    assert difference(velocity(load(tmp_path / "merged")), velocity(load(checkpoint))) > 1e-3


def test_a_merged_checkpoint_has_the_dtypes_and_the_manifest_of_its_base(
    adapter: Path, checkpoint: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(checkpoint, tmp_path / "base")
    half = AudioOmniTransformer.from_pretrained(base / "transformer", dtype=torch.bfloat16)
    half.save_pretrained(base / "transformer")
    write_manifest(base, record_files(base, [path for path in base.rglob("*") if path.is_file()]))

    merge(base, adapter, tmp_path / "merged")

    stored, merged = (
        {
            name: weight.dtype
            for name, weight in load_file(folder / "transformer/diffusion_pytorch_model.safetensors").items()
        }
        for folder in (base, tmp_path / "merged")
    )
    assert merged == stored
    assert {torch.bfloat16, torch.float32} == set(merged.values())
    assert all_faults(tmp_path / "merged") == {}


def test_what_fits_another_checkpoint_is_refused(adapter: Path, checkpoint: Path, tmp_path: Path) -> None:
    base = shutil.copytree(checkpoint, tmp_path / "base")
    card = json.loads((base / "card.json").read_text())
    (base / "card.json").write_text(json.dumps(card | {"revision": "of yesterday"}))

    with pytest.raises(AdapterInvalid, match=r"trained on audio-omni-tiny tiny-seed0, .* of yesterday"):
        merge(base, adapter, tmp_path / "merged")
    with pytest.raises(AdapterInvalid, match="neither an adapter nor a transformer"):
        merge(checkpoint, tmp_path, tmp_path / "merged")
    with pytest.raises(AdapterInvalid, match="another width"):
        AudioOmniTransformer(width=64, depth=2, heads=2).save_pretrained(tmp_path / "other")
        merge(checkpoint, tmp_path / "other", tmp_path / "merged")
    with pytest.raises(CheckpointInvalid):
        merge(tmp_path, adapter, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_damaged_adapter_is_refused(adapter: Path, checkpoint: Path, tmp_path: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])

    with pytest.raises(AdapterInvalid, match="does not fit"):
        merge(checkpoint, adapter, tmp_path / "merged")


def test_nothing_is_written_over(adapter: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()

    with pytest.raises(InvalidTrainingConfig, match="is there already"):
        merge(checkpoint, adapter, tmp_path / "merged")
