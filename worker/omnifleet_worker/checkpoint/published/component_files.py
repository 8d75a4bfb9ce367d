"""Writes one component as `from_pretrained` reads it: config.json and safetensors, a shard at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.configuration_utils import ConfigMixin
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...models.audio_omni.components import dtype_on_load
from ...models.folder import write_json

SHARD_BYTES = 10**9
"""Largest shard, unless one tensor alone is larger: it and what it is made from are all that lies in memory."""


@dataclass(frozen=True)
class Component:
    """A component to be written.

    Attributes:
        name: in the pipeline.
        model: on the meta device, in the shapes and dtypes that are found in the published file.
        open: gives its tensors, anew with each call, so that what a shard has read can be let go after it.
        dtype: to store it in, as far as it is one that may be chosen; None keeps what is published.
    """

    name: str
    model: nn.Module
    open: Callable[[], Mapping[str, Tensor]]
    dtype: torch.dtype | None

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor in shape and dtype as it will be stored, on the meta device."""
        found = self.model.state_dict()
        return {key: tensor.to(self.stored_dtype(key, tensor)) for key, tensor in found.items()}

    @property
    def bytes(self) -> int:
        """Size of the stored weights."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def stored_dtype(self, key: str, tensor: Tensor) -> torch.dtype:
        """Dtype that a published tensor is stored in. Full precision stays where loading would ask for it again."""
        loaded = dtype_on_load(self.name, key, self.dtype) if self.dtype else torch.float32
        return tensor.dtype if loaded == torch.float32 else loaded


def write_component(
    component: Component, folder: Path, advance: Callable[[int], None], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a component's folder.

    Args:
        component: what to write.
        folder: made; it must not exist yet.
        advance: called with the bytes of each shard once it is written.
        shard_bytes: largest file of weights.
    """
    folder.mkdir(parents=True)
    _write_config(component.model, folder)
    pattern = _file_pattern(component.model)
    split = split_torch_state_dict_into_shards(component.tensors, filename_pattern=pattern, max_shard_size=shard_bytes)
    for filename, keys in split.filename_to_tensors.items():
        advance(_write_shard(component, keys, folder / filename))
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        write_json(folder / f"{pattern.format(suffix='')}.index.json", index)


def _write_shard(component: Component, keys: list[str], path: Path) -> int:
    found = component.open()
    # Copies: tensors that share their storage in the published file cannot be saved beside each other.
    shard = {key: found[key].to(component.stored_dtype(key, found[key]), copy=True).contiguous() for key in keys}
    save_file(shard, path, metadata={"format": "pt"})
    return sum(tensor.nbytes for tensor in shard.values())


def _write_config(model: nn.Module, folder: Path) -> None:
    if isinstance(model, PreTrainedModel):
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
    elif isinstance(model, ConfigMixin):
        model.save_config(folder)
    else:
        raise TypeError(f"{type(model).__name__} has no configuration")


def _file_pattern(model: nn.Module) -> str:
    stem = "model" if isinstance(model, PreTrainedModel) else "diffusion_pytorch_model"
    return stem + "{suffix}.safetensors"
