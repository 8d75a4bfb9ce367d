"""A checkpoint with what was learned baked into its transformer, which workers serve as any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from omnifleet_shared.errors import AdapterInvalid, InvalidTrainingConfig
from peft import PeftModel
from safetensors import SafetensorError, safe_open

from ..checkpoint.manifest import MANIFEST, read_manifest, record_files, write_manifest
from ..models import folder as checkpoint_folder
from ..models.audio_omni.components import CONFIGS, OPTIONAL, PIPELINE
from ..models.audio_omni.transformer import AudioOmniTransformer
from .examples.latent_cache import hash_file
from .velocity_model import TRANSFORMER, replace_folder

_ADAPTER_CONFIG, _ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def merge(checkpoint: Path, trained: Path, out: Path) -> None:
    """Write a checkpoint whose transformer is the trained one.

    Args:
        checkpoint: folder of the one that was trained on; it is only read.
        trained: folder of the adapter (as peft writes it), or of the whole transformer.
        out: folder to write; it appears in one step, and must not be there yet.

    Raises:
        AdapterInvalid: `trained` is neither, or was trained on another checkpoint or revision.
        CheckpointInvalid: the checkpoint.
        InvalidTrainingConfig: `out` is there already.
    """
    if out.exists():
        raise InvalidTrainingConfig(f"{out} is there already", "out", "Name another folder, or remove it")
    names = checkpoint_folder.list_components(checkpoint, PIPELINE, CONFIGS, OPTIONAL)
    data = checkpoint_folder.read_data(checkpoint)
    transformer = _load_trained(checkpoint, trained, data["card"])
    _cast_as_stored(transformer, checkpoint / TRANSFORMER)
    part = out.with_name(f".part-{out.name}")
    shutil.rmtree(part, ignore_errors=True)
    for name in names:
        if name != TRANSFORMER:
            shutil.copytree(checkpoint / name, part / name)
    transformer.save_pretrained(part / TRANSFORMER)
    data["card"] |= {"revision": f"{data['card'].get('revision')}+{_revision(trained)}"}
    checkpoint_folder.write_data(part, **data)
    shutil.copy(checkpoint / checkpoint_folder.INDEX, part)
    _write_manifest(checkpoint, part)
    replace_folder(part, out)


def _load_trained(checkpoint: Path, trained: Path, card: dict[str, Any]) -> AudioOmniTransformer:
    """The merged transformer, float32."""
    if (trained / _ADAPTER_CONFIG).is_file():
        _check_base(trained / _ADAPTER_CONFIG, card)
        base = checkpoint_folder.load_component(checkpoint / TRANSFORMER, AudioOmniTransformer, torch.float32)
        merged = _merge_adapter(base, trained)
    elif (trained / "config.json").is_file():
        merged = checkpoint_folder.load_component(trained, AudioOmniTransformer, torch.float32)
        _check_shape(checkpoint / TRANSFORMER, trained)
    else:
        remedy = "Give `adapter` or `transformer` below the run's folder"
        raise AdapterInvalid(f"{trained} holds neither an adapter nor a transformer", "trained", remedy)
    assert isinstance(merged, AudioOmniTransformer)
    return merged


def _merge_adapter(base: AudioOmniTransformer, adapter: Path) -> Any:
    try:
        # Without a device named, peft would take whatever GPU there is.
        model: Any = PeftModel.from_pretrained(base, str(adapter), torch_device="cpu")
        return model.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError, OSError, SafetensorError) as error:
        raise AdapterInvalid(f"{adapter} does not fit the transformer: {error}", "trained") from error


def _check_base(config: Path, card: dict[str, Any]) -> None:
    try:
        said = json.loads(config.read_bytes())
        base = (said["base_model_name_or_path"], said["revision"])
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterInvalid(f"{config} does not say what it was trained on", "trained", "Train it again") from error
    wanted = (card.get("name"), card.get("revision"))
    if base != wanted:
        problem = f"it was trained on {base[0]} {base[1]}, and the checkpoint is {wanted[0]} {wanted[1]}"
        raise AdapterInvalid(problem, "trained", "Merge it into the checkpoint that it was trained on")


def _check_shape(base: Path, trained: Path) -> None:
    one, other = (checkpoint_folder.read_json(folder / "config.json") for folder in (base, trained))
    names = [name for name in one.keys() | other.keys() if not name.startswith("_")]
    differing = [name for name in names if one.get(name) != other.get(name)]
    if differing:
        raise AdapterInvalid(f"{trained} is a transformer of another {sorted(differing)[0]}", "trained")


def _cast_as_stored(transformer: AudioOmniTransformer, folder: Path) -> None:
    """Give each weight the dtype that the checkpoint's own has on disk."""
    stored: dict[str, str] = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            stored |= {key: file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118, no mapping
    for name, weight in transformer.named_parameters():
        if stored.get(name) == "BF16":
            weight.data = weight.data.bfloat16()


def _revision(trained: Path) -> str:
    weights = sorted(trained.glob("*.safetensors"))
    return "-".join(hash_file(path)[:12] for path in weights[:1])


def _write_manifest(checkpoint: Path, part: Path) -> None:
    if read_manifest(checkpoint) is not None:
        files = [path for path in part.rglob("*") if path.is_file() and path.name != MANIFEST]
        write_manifest(part, record_files(part, files))
