"""Reads an adapter as peft writes it, and refuses what does not fit the transformer."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from omnifleet_shared.errors import AdapterInvalid
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from omnifleet_worker.models.audio_omni.adapters.low_rank import LAYERS, AdapterWeights, LowRank
from omnifleet_worker.models.audio_omni.transformer import AudioOmniTransformer

_KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_LAYER = re.compile(r"transformer_blocks\.(\d+)\.(.+)")
_OTHER_FORMS = ("use_dora", "use_qalora", "fan_in_fan_out", "lora_bias", "alpha_pattern", "layer_replication")
"""Fields of peft's configuration that, where they are set, make another product of the matrices."""
_TRAIN_AGAIN = "Train it with omnifleet-worker train, or with peft's LoRA on the linear layers of the blocks"


class AdapterReader:
    """Reads adapters for one transformer. Thread-safe.

    Args:
        transformer: that they are for, on its device.
        name: of its checkpoint.
        revision: of its checkpoint.
        max_rank: largest rank of any layer.
        max_bytes: largest adapter, as it is on the device.
    """

    def __init__(
        self, transformer: AudioOmniTransformer, name: str, revision: str, *, max_rank: int, max_bytes: int
    ) -> None:
        self._sizes = layer_sizes(transformer)
        self._blocks = len(transformer.blocks)
        self._like = transformer.proj_in.weight
        self._base = (name, revision)
        self.max_rank = max_rank
        self.max_bytes = max_bytes

    def read(self, config: bytes, weights: bytes) -> AdapterWeights:
        """Read an adapter and put it on the device, in the transformer's dtype.

        Args:
            config: adapter_config.json.
            weights: adapter_model.safetensors.

        Raises:
            AdapterInvalid: neither is one, it was trained on another checkpoint or revision, or it has parts that this
                transformer has no layers for, or that are too large.
        """
        said = read_config(config)
        self._check_base(said)
        scaling = _scaling(said)
        found: dict[str, dict[int, LowRank]] = defaultdict(dict)
        for module, down, up in _pairs(_load(weights)):
            block, layer = self._place(module)
            found[layer][block] = self._check(module, down, up)
        read = AdapterWeights({layer: self._stack(found[layer], *self._sizes[layer], scaling) for layer in LAYERS})
        if read.nbytes > self.max_bytes:
            problem = f"it takes {read.nbytes:,} bytes, and the worker has {self.max_bytes:,} for adapters"
            raise AdapterInvalid(problem, "adapter", "Raise OMNIFLEET_ADAPTER_CACHE, or train one of a smaller rank")
        return read

    def _check_base(self, said: Mapping[str, Any]) -> None:
        base = (said.get("base_model_name_or_path"), said.get("revision"))
        if base != self._base:
            problem = f"it was trained on {base[0]} {base[1]}, and the worker runs {self._base[0]} {self._base[1]}"
            raise AdapterInvalid(problem, "adapter", "Name an adapter of this checkpoint, or train it on this one")

    def _place(self, module: str) -> tuple[int, str]:
        """Number of the block and name of the layer."""
        found = _LAYER.fullmatch(module)
        if found is None or int(found[1]) >= self._blocks or found[2] not in LAYERS:
            problem = f"it adapts {module[:80]}, and only {', '.join(LAYERS)} of blocks 0 to {self._blocks - 1} can be"
            raise AdapterInvalid(problem, "adapter", _TRAIN_AGAIN)
        return int(found[1]), found[2]

    def _check(self, module: str, down: Tensor, up: Tensor) -> LowRank:
        outward, inward = self._sizes[self._place(module)[1]]
        rank = down.shape[0] if down.ndim else 0
        if down.shape != (rank, inward) or up.shape != (outward, rank) or not rank:
            problem = f"{module} has parts {list(down.shape)} and {list(up.shape)} beside {outward} x {inward} weights"
            raise AdapterInvalid(problem, "adapter", "Train it on this checkpoint")
        if rank > self.max_rank:
            problem = f"{module} is of rank {rank}, and {self.max_rank} is the most here"
            raise AdapterInvalid(problem, "adapter", "Raise OMNIFLEET_ADAPTER_RANK, or train one of a smaller rank")
        if not (down.is_floating_point() and up.is_floating_point()):
            raise AdapterInvalid(f"{module} has parts of {down.dtype}", "adapter", "Save it in float32 or bfloat16")
        if not (down.isfinite().all() and up.isfinite().all()):
            # Rows of a batch without this adapter would meet them too: nothing times what is no number is none either.
            raise AdapterInvalid(f"{module} has weights that are no numbers", "adapter", "Train it again")
        return LowRank(down.float(), up.float())

    def _stack(self, found: Mapping[int, LowRank], outward: int, inward: int, scaling: _Scaling) -> LowRank:
        rank = max((part.down.shape[0] for part in found.values()), default=0)
        down = torch.zeros(self._blocks, rank, inward)
        up = torch.zeros(self._blocks, outward, rank)
        for block, part in found.items():
            own = part.down.shape[0]
            down[block, :own], up[block, :, :own] = part.down, part.up * scaling.of(own)
        return LowRank(*(whole.to(self._like.device, self._like.dtype) for whole in (down, up)))


class _Scaling:
    def __init__(self, alpha: float, *, by_root: bool) -> None:
        self._alpha = alpha
        self._by_root = by_root

    def of(self, rank: int) -> float:
        return self._alpha / (rank**0.5 if self._by_root else rank)


def layer_sizes(transformer: AudioOmniTransformer) -> dict[str, tuple[int, int]]:
    """Features out of and into each of `LAYERS`, which all blocks share."""
    block: Any = transformer.blocks[0]
    return {name: tuple(block.get_submodule(name).weight.shape) for name in LAYERS}


def read_config(config: bytes) -> dict[str, Any]:
    """Read adapter_config.json. Raises AdapterInvalid for what is none of a plain LoRA."""
    try:
        said: dict[str, Any] = json.loads(config)
        kind = said.get("peft_type")
    except (ValueError, AttributeError, RecursionError) as error:
        raise AdapterInvalid("adapter_config.json cannot be read", "adapter", _TRAIN_AGAIN) from error
    other = [name for name in _OTHER_FORMS if said.get(name)]
    if kind != "LORA" or other or said.get("bias", "none") != "none":
        named = ", ".join(other) or (f"bias {said.get('bias')}" if kind == "LORA" else f"peft_type {str(kind)[:40]}")
        raise AdapterInvalid(f"{named} is not served", "adapter", _TRAIN_AGAIN)
    return said


def _scaling(said: Mapping[str, Any]) -> _Scaling:
    alpha = said.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise AdapterInvalid("adapter_config.json has no lora_alpha", "adapter", _TRAIN_AGAIN)
    return _Scaling(float(alpha), by_root=bool(said.get("use_rslora")))


def _load(weights: bytes) -> dict[str, Tensor]:
    try:
        return load(weights)
    except (SafetensorError, ValueError, KeyError) as error:
        remedy = "Give a file in safetensors; others may carry code, and are not read"
        raise AdapterInvalid(f"adapter_model.safetensors cannot be read: {error}", "adapter", remedy) from error


def _pairs(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor, Tensor]]:
    """Modules with their two matrices."""
    halves: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise AdapterInvalid(f"it holds {key[:120]}, which is no part of a LoRA", "adapter", _TRAIN_AGAIN)
        halves[found[1]][found[2]] = tensor
    for module, pair in halves.items():
        if len(pair) < 2:
            raise AdapterInvalid(f"{module[:120]} has one matrix without the other", "adapter", "Train it again")
    if not halves:
        raise AdapterInvalid("it holds nothing", "adapter", "Train it again")
    return [(module, pair["A"], pair["B"]) for module, pair in halves.items()]
