"""Folders as peft writes them, with an adapter of nothing: what clients see of one. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

BASE = {"base_model_name_or_path": "audio-omni", "revision": "published"}


def write_folder(folder: Path, *, rank: int = 4, seed: int = 0, **config: Any) -> Path:
    """Write one whose weights are the bytes of `seed`."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, **BASE} | config
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "adapter_model.safetensors").write_bytes(weights(rank, seed))
    return folder


def weights(rank: int, seed: int = 0) -> bytes:
    """A safetensors file with the two matrices of one layer of two features."""
    module, size = "base_model.model.transformer_blocks.0.attn1.to_qkv", 8 * rank
    parts = {
        f"{module}.lora_A.weight": {"dtype": "F32", "shape": [rank, 2], "data_offsets": [0, size]},
        f"{module}.lora_B.weight": {"dtype": "F32", "shape": [2, rank], "data_offsets": [size, 2 * size]},
    }
    header = json.dumps(parts).encode()
    return len(header).to_bytes(8, "little") + header + bytes([seed]) * (2 * size)
