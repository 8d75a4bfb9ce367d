"""Adapters with random weights: on the device, and as folders that peft reads and writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omnifleet_worker.models.audio_omni.adapters.low_rank import AdapterWeights, AppliedAdapter, LowRank
from omnifleet_worker.models.audio_omni.adapters.reader import layer_sizes
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer
from safetensors.torch import save_file

SCALES = (1.0, 0.5, -1.0, 2.0)


def random_adapters(transformer: AudioOmniTransformer, ranks: Sequence[int]) -> list[AppliedAdapter]:
    """One of each rank for all layers of the blocks, each applied at another scale."""
    blocks, sizes, like = len(transformer.blocks), layer_sizes(transformer), transformer.proj_in.weight
    adapters: list[AppliedAdapter] = []
    for seed, rank in enumerate(ranks):
        drawn = torch.Generator().manual_seed(seed)
        parts = {
            name: LowRank(
                torch.randn(blocks, rank, inward, generator=drawn).to(like) / inward**0.5,
                0.2 * torch.randn(blocks, outward, rank, generator=drawn).to(like) / rank**0.5,
            )
            for name, (outward, inward) in sizes.items()
        }
        adapters.append(
            AppliedAdapter(sha256=f"adapter {seed}", scale=SCALES[seed % len(SCALES)], weights=AdapterWeights(parts))
        )
    return adapters


def write_adapter(folder: Path, checkpoint: Path, *, seed: int = 0, rank: int = 4, **config: Any) -> Path:
    """Write an adapter for every layer of the blocks of a checkpoint, as `omnifleet-worker train` does."""
    card = json.loads((checkpoint / "card.json").read_bytes())
    transformer = AudioOmniTransformer.from_pretrained(checkpoint / "transformer")
    assert isinstance(transformer, AudioOmniTransformer)
    drawn, tensors = torch.Generator().manual_seed(seed), dict[str, torch.Tensor]()
    for block in range(len(transformer.blocks)):
        for name, (outward, inward) in layer_sizes(transformer).items():
            module = f"base_model.model.transformer_blocks.{block}.{name}"
            tensors[f"{module}.lora_A.weight"] = torch.randn(rank, inward, generator=drawn) / inward**0.5
            tensors[f"{module}.lora_B.weight"] = 0.2 * torch.randn(outward, rank, generator=drawn)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    base = {"base_model_name_or_path": card["name"], "revision": card["revision"]}
    names = ["to_qkv", "to_q", "to_kv", "to_out", "net.0.proj", "net.2"]
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": names, "bias": "none", **base}
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    return folder
