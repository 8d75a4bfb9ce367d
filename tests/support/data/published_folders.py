"""The published files at tiny size: weights drawn by name, a clone with sentences of the tests' own, a processor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omnifleet_worker.models.audio_omni.tiny import tiny_processor
from parity.weights import DATA, draw_weight
from torch import Tensor

PROMPTS = '''
"""Sentences."""
import os
from nowhere import nothing

SYSTEM_EDITING = "Edit it."
SYSTEM_T2A = (
    "Make "
    "a sound."
)
SYSTEM_T2M: str = "Make " + "music."
SYSTEM_TTS = "Say it."
SYSTEM_UNDERSTANDING = "Answer."
SYSTEM_V2A = "Watch, make a sound."
SYSTEM_V2M = "Watch, make music."
EDIT_TEMPLATES = {
    "Add": "Add {desc}.",
    "Remove": "Remove {desc}.",
    "Extract": "Extract {desc}.",
    "Style": "Make {target} of {source}.",
}
ASR_SYSTEM = "You transcribe."
ASR_USER = "Transcribe this."
STEPS = 100

def build(task):
    return SYSTEM_T2A
'''
VOCAB = [" ", *(f"<{place}>" for place in range(1, 2545))]


def shapes(name: str) -> dict[str, list[int]]:
    """Keys and shapes of a published file."""
    return json.loads((DATA / name).read_text())


def full_size_config() -> dict[str, Any]:
    """The published configuration; it differs from the tiny one in these sizes alone."""
    config = json.loads((DATA / "tiny_config.json").read_text())
    config["model"]["diffusion"]["config"] |= {"embed_dim": 2048, "depth": 36, "num_heads": 32}
    vae = config["model"]["pretransform"]["config"]
    vae["encoder"]["config"]["channels"] = vae["decoder"]["config"]["channels"] = 128
    return config


def small_synchformer_shapes() -> dict[str, list[int]]:
    """The video encoder's, with one block of its twelve."""
    later = tuple(f"vfeat_extractor.blocks.{block}." for block in range(1, 12))
    found = shapes("synchformer_state_dict_shapes.json")
    return {key: shape for key, shape in found.items() if not key.startswith(later)}


def hollow(key: str, shape: list[int]) -> Tensor:
    """A tensor of that shape which takes four bytes on disk."""
    return torch.zeros(1).expand(shape)


def write_weights(folder: Path, draw: Callable[[str, list[int]], Tensor] = draw_weight) -> Path:
    """Write what is published as the weights: about 370 MB where tensors are drawn, and little where hollow."""
    folder.mkdir(parents=True)
    main = {key: draw(key, shape) for key, shape in shapes("tiny_state_dict_shapes.json").items()}
    video = {key: draw(key, shape) for key, shape in small_synchformer_shapes().items()}
    torch.save({"state_dict": main}, folder / "model.ckpt")
    torch.save(video | {"afeat_extractor.unused": torch.zeros(2)}, folder / "synchformer_state_dict.pth")
    shutil.copy(DATA / "tiny_config.json", folder / "Audio-Omni.json")
    return folder


def write_code(folder: Path, prompts: str = PROMPTS) -> Path:
    """Write a clone of the published code, as far as the conversion reads it."""
    (folder / "audio_omni/data").mkdir(parents=True)
    (folder / "audio_omni/prompts.py").write_text(prompts)
    (folder / "audio_omni/data/vocab.txt").write_text("\n".join(VOCAB) + "\n")
    return folder


def write_processor(folder: Path) -> Path:
    """Write the tiny processor in the layout that Qwen's is published in, which is older than transformers 5's."""
    processor = tiny_processor()
    processor.tokenizer.save_pretrained(folder)
    mel = {name: value for name, value in processor.feature_extractor.to_dict().items() if name != "mel_filters"}
    pictures = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}
    config = mel | pictures | {"processor_class": "Qwen2_5OmniProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    return folder
