"""The video encoder, read from the published layout at its full size, gives the published numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_worker.checkpoint.published.synchformer import load_published_synchformer
from safetensors.torch import load_file
from torch import Tensor

from .weights import DATA, draw, write_published_synchformer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published_synchformer(tmp_path_factory.mktemp("synchformer") / "synchformer_state_dict.pth")


@pytest.fixture
def state_dict(checkpoint: Path) -> dict[str, Tensor]:
    loaded: dict[str, Tensor] = torch.load(checkpoint, weights_only=True, mmap=True)
    return loaded


def load_without_values(state_dict: dict[str, Tensor], folder: Path) -> None:
    """Load a file of the same names and shapes, that takes no space."""
    path = folder / "synchformer_state_dict.pth"
    torch.save({key: torch.zeros(()).expand(tensor.shape) for key, tensor in state_dict.items()}, path)
    load_published_synchformer(path)


def test_video_features(checkpoint: Path, agrees: Callable[..., None]) -> None:
    model = load_published_synchformer(checkpoint).eval()
    segments = draw("sync_video", 1, 2, 16, 3, 224, 224).clamp(-1, 1)
    agrees(model(segments), load_file(DATA / "synchformer.safetensors")["sync.features"].flatten(1, 2))


def test_other_parts_of_the_file_are_left_out(state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    load_without_values(state_dict | {"afeat_extractor.cls_token": torch.zeros(1)}, tmp_path)


def test_an_unknown_tensor_is_named(state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"vfeat_extractor\.surprise"):
        load_without_values(state_dict | {"vfeat_extractor.surprise": torch.zeros(1)}, tmp_path)


def test_a_missing_tensor_is_named(state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    del state_dict["vfeat_extractor.blocks.3.norm3.bias"]
    with pytest.raises(CheckpointInvalid, match=r"synchformer\.transformer_blocks\.3\.norm1\.bias"):
        load_without_values(state_dict, tmp_path)


def test_a_tensor_of_another_shape_is_named(state_dict: dict[str, Tensor], tmp_path: Path) -> None:
    state_dict["vfeat_extractor.norm.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointInvalid, match=r"norm_out\.bias is \[5\] instead of \[768\]"):
        load_without_values(state_dict, tmp_path)
