"""Every tensor of the published layout is used exactly once, or the checkpoint is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omnifleet_shared.errors import CheckpointInvalid
from omnifleet_worker.checkpoint.published.state_dict import (
    assign,
    build_components,
    component_configs,
    load_published,
    published_thinker_config,
)
from torch import Tensor

from .weights import DATA, tiny_thinker_config

GAMMA = "model.model.transformer.layers.0.pre_norm.gamma"


def read(name: str) -> dict[str, Any]:
    return json.loads((DATA / name).read_text())


def empty_state_dict(name: str) -> dict[str, Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in read(name).items()}


def full_size_config() -> dict[str, Any]:
    """The real configuration; it differs from the tiny one in these sizes alone."""
    config = read("tiny_config.json")
    config["model"]["diffusion"]["config"] |= {"embed_dim": 2048, "depth": 36, "num_heads": 32}
    vae = config["model"]["pretransform"]["config"]
    vae["encoder"]["config"]["channels"] = vae["decoder"]["config"]["channels"] = 128
    return config


@pytest.fixture
def tiny_state_dict() -> dict[str, Tensor]:
    return empty_state_dict("tiny_state_dict_shapes.json")


def give(state_dict: dict[str, Tensor]) -> None:
    assign(build_components(read("tiny_config.json"), tiny_thinker_config()), state_dict)


def test_every_tensor_of_the_full_size_checkpoint_has_its_place() -> None:
    components = build_components(full_size_config(), published_thinker_config())
    assign(components, empty_state_dict("full_state_dict_shapes.json"))


def test_an_unknown_tensor_is_named(tiny_state_dict: dict[str, Tensor]) -> None:
    tiny_state_dict["model.model.surprise.weight"] = torch.empty(1)
    with pytest.raises(CheckpointInvalid, match=r"model\.model\.surprise\.weight"):
        give(tiny_state_dict)


def test_a_known_name_at_an_impossible_place_is_named(tiny_state_dict: dict[str, Tensor]) -> None:
    tiny_state_dict[GAMMA.replace("layers.0", "layers.2")] = tiny_state_dict[GAMMA]
    with pytest.raises(CheckpointInvalid, match=r"transformer_blocks\.2\.norm1\.weight"):
        give(tiny_state_dict)


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        (GAMMA, "transformer.transformer_blocks.0.norm1.weight"),
        ("pretransform.model.decoder.layers.3.layers.1.bias", "vae.decoder.block.2.conv_t1.bias"),
        ("conditioner.conditioners.omni_prompt.model.thinker.lm_head.weight", "thinker.lm_head.weight"),
        ("conditioner.conditioners.sync_feature.dim_project.bias", "sync_encoder.frame_projection.bias"),
    ],
)
def test_a_missing_tensor_is_named(tiny_state_dict: dict[str, Tensor], published: str, ours: str) -> None:
    del tiny_state_dict[published]
    with pytest.raises(CheckpointInvalid) as error:
        give(tiny_state_dict)
    assert error.value.field == ours


def test_a_tensor_of_another_shape_is_named(tiny_state_dict: dict[str, Tensor]) -> None:
    tiny_state_dict[GAMMA] = torch.empty(64)
    with pytest.raises(CheckpointInvalid, match=r"norm1\.weight is \[64\] instead of \[128\]"):
        give(tiny_state_dict)


def test_a_configuration_without_a_value_is_refused() -> None:
    config = read("tiny_config.json")
    del config["model"]["diffusion"]["config"]["num_heads"]
    with pytest.raises(CheckpointInvalid, match="num_heads"):
        component_configs(config)


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "model.ckpt"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(CheckpointInvalid, match=r"model\.ckpt"):
        load_published(broken, DATA / "tiny_config.json", tiny_thinker_config())


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match=r"model\.ckpt"):
        load_published(tmp_path / "model.ckpt", DATA / "tiny_config.json", tiny_thinker_config())
