"""Reads the published video encoder, `synchformer_state_dict.pth`. docs/model.md, "Files of a published checkpoint"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from accelerate import init_empty_weights
from omnifleet_shared.errors import CheckpointInvalid
from torch import Tensor

from omnifleet_worker.checkpoint.published.state_dict import check_complete, read_state_dict
from omnifleet_worker.models.audio_omni.synchformer import Synchformer

_VIDEO = "vfeat_extractor."
_BLOCK = r"blocks\.(\d+)\."
_OURS = r"transformer_blocks.\1."

_RULES = (
    (r"(cls_token|pos_embed|temp_embed)", r"\1"),
    (r"patch_embed_3d\.proj\.(\w+)", r"patch_embed.\1"),
    (_BLOCK + r"norm3\.(\w+)", _OURS + r"norm1.\2"),
    (_BLOCK + r"timeattn\.qkv\.(\w+)", _OURS + r"time_attn.to_qkv.\2"),
    (_BLOCK + r"timeattn\.proj\.(\w+)", _OURS + r"time_attn.to_out.\2"),
    (_BLOCK + r"norm1\.(\w+)", _OURS + r"norm2.\2"),
    (_BLOCK + r"attn\.qkv\.(\w+)", _OURS + r"space_attn.to_qkv.\2"),
    (_BLOCK + r"attn\.proj\.(\w+)", _OURS + r"space_attn.to_out.\2"),
    (_BLOCK + r"norm2\.(\w+)", _OURS + r"norm3.\2"),
    (_BLOCK + r"mlp\.fc1\.(\w+)", _OURS + r"ff.net.0.proj.\2"),
    (_BLOCK + r"mlp\.fc2\.(\w+)", _OURS + r"ff.net.2.\2"),
    (r"norm\.(\w+)", r"norm_out.\1"),
    (r"spatial_attn_agg\.cls_token", r"pool_token"),
    (r"spatial_attn_agg\.(.+)", r"pool.\1"),
)
"""(pattern of the published key after `vfeat_extractor.`, our key); the first that matches counts."""

_UNUSED = r"patch_embed\..+"
"""Patches of single pictures, from before it was taught video."""


def load_published_synchformer(path: Path) -> Synchformer:
    """Load the published video encoder in float32.

    Args:
        path: `synchformer_state_dict.pth`; only its `vfeat_extractor.*` tensors are used.

    Raises:
        CheckpointInvalid: the file cannot be read, or a tensor is unknown, missing or of another shape.
    """
    # Not memory-mapped: the file may be in torch's older format, which cannot be.
    placed = _place(read_state_dict(path, mmap=False))
    with init_empty_weights():
        model = Synchformer()
    check_complete("synchformer", model.state_dict(), placed)
    model.load_state_dict(placed, assign=True)
    return model


def _place(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    video = {key.removeprefix(_VIDEO): tensor for key, tensor in state_dict.items() if key.startswith(_VIDEO)}
    return {_locate(key): tensor.float() for key, tensor in video.items() if not re.fullmatch(_UNUSED, key)}


def _locate(key: str) -> str:
    for pattern, replacement in _RULES:
        if match := re.fullmatch(pattern, key):
            return match.expand(replacement)
    raise CheckpointInvalid(
        f"the published video encoder holds an unknown tensor, {_VIDEO}{key}",
        field=_VIDEO + key,
        remedy="Use the synchformer_state_dict.pth that Audio-Omni is published with",
    )
