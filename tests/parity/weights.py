"""Tensors drawn by name, so that every machine has the weights and inputs of the parity files (docs/model.md)."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from omnifleet_worker.checkpoint.parity import draw
from torch import Tensor
from transformers import Qwen2_5OmniThinkerConfig

DATA = Path(__file__).parent / "data"


def draw_weight(key: str, shape: list[int]) -> Tensor:
    """One tensor of the published layout, by the rule of docs/model.md, "The parity files"."""
    if key.startswith("model.model.") and key.endswith(".beta"):
        return torch.zeros(shape)
    if key.endswith("inv_freq"):
        return 1 / 10_000 ** (torch.arange(0, 2 * shape[0], 2) / (2 * shape[0]))
    normal = draw(key, *shape)
    if key.endswith((".gamma", "norm.weight", "weight_g")) or _is_synchformer_norm(key):
        return 1 + 0.1 * normal
    if key.endswith("alpha"):
        return 0.1 * normal
    fan = math.prod(shape[1:]) if len(shape) > 1 else shape[0]
    return (normal.double() / math.sqrt(fan)).float()


def _is_synchformer_norm(key: str) -> bool:
    return key.startswith("vfeat_extractor.") and "norm" in key and key.endswith(".weight")


def write_published_synchformer(path: Path) -> Path:
    """Write the video encoder at its full size in the published layout (a state dict), about 530 MB."""
    shapes = json.loads((DATA / "synchformer_state_dict_shapes.json").read_text())
    torch.save({key: draw_weight(key, shape) for key, shape in shapes.items()}, path)
    return path


def write_published(path: Path) -> Path:
    """Write the tiny checkpoint in the published layout (a state dict), about 300 MB."""
    shapes = json.loads((DATA / "tiny_state_dict_shapes.json").read_text())
    torch.save({"state_dict": {key: draw_weight(key, shape) for key, shape in shapes.items()}}, path)
    return path


def tiny_thinker_config() -> Qwen2_5OmniThinkerConfig:
    """The thinker that the parity files were computed with: the real one's hidden size, little else."""
    return Qwen2_5OmniThinkerConfig(
        audio_config={
            "d_model": 64,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 64,
            "output_dim": 2048,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 64,
            "num_heads": 2,
            "intermediate_size": 64,
            "out_hidden_size": 2048,
        },
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 512,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_start_token_id=500,
        vision_end_token_id=501,
        audio_token_index=502,
        image_token_index=503,
        video_token_index=504,
    )
