"""Where each tensor of the published state dict belongs in this project's components. docs/model.md, "Parts".

Names only, no tensors: the same tables serve a state dict in memory and one that is streamed from disk.
"""

from __future__ import annotations

import re
from itertools import product

from omnifleet_shared.errors import CheckpointInvalid
from torch import Tensor

_CONDITIONERS = r"conditioner\.conditioners\."
_THINKER = _CONDITIONERS + r"omni_prompt\.model\.thinker\."
_SPEECH = _CONDITIONERS + r"speech_prompt\."
_AUDIO = _CONDITIONERS + r"audio_input_prompt\."
_SYNC = _CONDITIONERS + r"sync_feature\."
_DIT = r"model\.model\."
_LAYER = _DIT + r"transformer\.layers\.(\d+)\."
_BLOCK = r"transformer_blocks.\1."

_RULES = (
    (_DIT + r"timestep_features\.weight", "transformer", r"time_proj.weight"),
    (_DIT + r"to_timestep_embed\.0\.(\w+)", "transformer", r"timestep_embedder.linear_1.\1"),
    (_DIT + r"to_timestep_embed\.2\.(\w+)", "transformer", r"timestep_embedder.linear_2.\1"),
    (_DIT + r"to_cond_embed\.([02])\.weight", "transformer", r"context_embedder.\1.weight"),
    (_DIT + r"to_global_embed\.([02])\.weight", "transformer", r"global_embedder.\1.weight"),
    (_DIT + r"preprocess_conv\.weight", "transformer", r"conv_in.weight"),
    (_DIT + r"postprocess_conv\.weight", "transformer", r"conv_out.weight"),
    (_DIT + r"transformer\.project_in\.weight", "transformer", r"proj_in.weight"),
    (_DIT + r"transformer\.project_out\.weight", "transformer", r"proj_out.weight"),
    (_LAYER + r"pre_norm\.gamma", "transformer", _BLOCK + r"norm1.weight"),
    (_LAYER + r"self_attn\.(to_\w+)\.weight", "transformer", _BLOCK + r"attn1.\2.weight"),
    (_LAYER + r"cross_attend_norm\.gamma", "transformer", _BLOCK + r"norm2.weight"),
    (_LAYER + r"cross_attn\.(to_\w+)\.weight", "transformer", _BLOCK + r"attn2.\2.weight"),
    (_LAYER + r"ff_norm\.gamma", "transformer", _BLOCK + r"norm3.weight"),
    (_LAYER + r"ff\.ff\.0\.proj\.(\w+)", "transformer", _BLOCK + r"ff.net.0.proj.\2"),
    (_LAYER + r"ff\.ff\.2\.(\w+)", "transformer", _BLOCK + r"ff.net.2.\2"),
    (_THINKER + r"model\.(.+)", "thinker", r"model.language_model.\1"),
    (_THINKER + r"((?:audio_tower|visual)\..+)", "thinker", r"model.\1"),
    (_THINKER + r"(lm_head\..+)", "thinker", r"\1"),
    (_CONDITIONERS + r"omni_prompt\.proj_features\.(\w+)", "omni_projection", r"projection.\1"),
    (_SPEECH + r"text_embed\.text_embed\.weight", "speech_encoder", r"embedding.weight"),
    (_SPEECH + r"text_embed\.text_blocks\.(.+)", "speech_encoder", r"blocks.\1"),
    (_SPEECH + r"proj_features\.(\w+)", "speech_encoder", r"feature_projection.\1"),
    (_SPEECH + r"proj_seq_len\.(\w+)", "speech_encoder", r"position_projection.\1"),
    (_SPEECH + r"empty_speech_feat", "speech_encoder", r"empty_features"),
    (_AUDIO + r"proj_features\.(\w+)", "audio_encoder", r"mel_projection.\1"),
    (_AUDIO + r"proj_sequence_features\.(\w+)", "audio_encoder", r"frame_projection.\1"),
    (_SYNC + r"norm\.(\w+)", "sync_encoder", r"norm.\1"),
    (_SYNC + r"proj\.(\w+)", "sync_encoder", r"feature_projection.\1"),
    (_SYNC + r"dim_project\.(\w+)", "sync_encoder", r"frame_projection.\1"),
)
"""(pattern of the whole published key, component, key there)."""

_UNUSED = (
    _LAYER + r"(pre_norm|cross_attend_norm|ff_norm)\.beta",  # a buffer of zeros
    _DIT + r"transformer\.rotary_pos_emb\.inv_freq",  # computed
    _AUDIO + r"empty_audio_feat",  # for training alone
)

_VAE_BLOCKS = 5
_VAE_ENDS = {"layers.0": "conv1", f"layers.{_VAE_BLOCKS + 1}": "snake1", f"layers.{_VAE_BLOCKS + 2}": "conv2"}
_VAE_BLOCK_LAYERS = {
    "encoder": ("res_unit1", "res_unit2", "res_unit3", "snake1", "conv1"),
    "decoder": ("snake1", "conv_t1", "res_unit1", "res_unit2", "res_unit3"),
}
_VAE_UNIT_LAYERS = ("snake1", "conv1", "snake2", "conv2")


def _vae_block_modules(side: str, block: int) -> dict[str, str]:
    modules: dict[str, str] = {}
    for index, name in enumerate(_VAE_BLOCK_LAYERS[side]):
        published, ours = f"{side}.layers.{block + 1}.layers.{index}", f"{side}.block.{block}.{name}"
        if name.startswith("res_unit"):
            modules |= {f"{published}.layers.{i}": f"{ours}.{layer}" for i, layer in enumerate(_VAE_UNIT_LAYERS)}
        else:
            modules[published] = ours
    return modules


def _vae_modules() -> dict[str, str]:
    """Published module paths under `pretransform.model.` with diffusers' paths for them."""
    modules = {f"{side}.{old}": f"{side}.{new}" for side, (old, new) in product(_VAE_BLOCK_LAYERS, _VAE_ENDS.items())}
    for side, block in product(_VAE_BLOCK_LAYERS, range(_VAE_BLOCKS)):
        modules |= _vae_block_modules(side, block)
    return modules


_VAE_MODULES = _vae_modules()


def _locate_vae(key: str) -> tuple[str, str] | None:
    module, _, parameter = key.removeprefix("pretransform.model.").rpartition(".")
    return ("vae", f"{_VAE_MODULES[module]}.{parameter}") if module in _VAE_MODULES else None


def _locate_by_rule(key: str) -> tuple[str, str] | None:
    for pattern, component, replacement in _RULES:
        if match := re.fullmatch(pattern, key):
            return component, match.expand(replacement)
    return None


def is_unused(key: str) -> bool:
    """Whether inference needs nothing of that published tensor: it is computed, constant or for training."""
    return any(re.fullmatch(pattern, key) for pattern in _UNUSED)


def locate(key: str) -> tuple[str, str]:
    """Component and key there of a published tensor that is not unused.

    Raises:
        CheckpointInvalid: the published model has no such tensor.
    """
    place = _locate_vae(key) if key.startswith("pretransform.model.") else _locate_by_rule(key)
    if place is None:
        raise CheckpointInvalid(
            f"the published checkpoint holds an unknown tensor, {key}",
            field=key,
            remedy="Use the checkpoint published with arXiv 2604.10708",
        )
    return place


def reshape(component: str, key: str, tensor: Tensor) -> Tensor:
    """The tensor in the shape that `component` has it in; a view. Few differ, and only by dimensions of 1."""
    if component == "vae" and key.endswith((".alpha", ".beta")):
        return tensor.view(1, -1, 1)
    return tensor.flatten() if (component, key) == ("transformer", "time_proj.weight") else tensor
