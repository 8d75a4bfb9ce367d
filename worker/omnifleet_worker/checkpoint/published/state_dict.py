"""Reads the published checkpoint (one state dict and one configuration) into this project's components.

docs/model.md, "Files of a published checkpoint". What the published files lack (processor, prompts, vocabulary,
card) is not made up here.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from omnifleet_shared.errors import CheckpointInvalid
from torch import Tensor, nn
from transformers import Qwen2_5OmniThinkerConfig

from omnifleet_worker.checkpoint.published import keys as published_keys
from omnifleet_worker.models.audio_omni.pipeline import COMPONENTS

_WHOLE = "Download the published checkpoint again and check its size"


def published_thinker_config() -> Qwen2_5OmniThinkerConfig:
    """Qwen2.5-Omni-3B's thinker, which the published checkpoint holds but does not describe."""
    return Qwen2_5OmniThinkerConfig.from_dict(
        {
            "audio_config": {
                "d_model": 1280,
                "encoder_layers": 32,
                "encoder_attention_heads": 20,
                "encoder_ffn_dim": 5120,
                "output_dim": 2048,
            },
            "vision_config": {
                "depth": 32,
                "hidden_size": 1280,
                "num_heads": 16,
                "intermediate_size": 3420,
                "out_hidden_size": 2048,
            },
            "text_config": {
                "hidden_size": 2048,
                "num_hidden_layers": 36,
                "num_attention_heads": 16,
                "num_key_value_heads": 2,
                "intermediate_size": 11008,
                "vocab_size": 151936,
                "tie_word_embeddings": False,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            },
            "audio_token_index": 151646,
            "audio_start_token_id": 151647,
            "audio_end_token_id": 151648,
            "vision_start_token_id": 151652,
            "vision_end_token_id": 151653,
            "image_token_index": 151655,
            "video_token_index": 151656,
        }
    )


def component_configs(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Arguments of each component but the thinker, from the published configuration.

    Raises:
        CheckpointInvalid: a value is missing, or not where it should be.
    """
    try:
        return _component_configs(config)
    except KeyError as error:
        raise CheckpointInvalid(f"the published configuration lacks {error}", remedy=_WHOLE) from error
    except TypeError as error:
        raise CheckpointInvalid(f"the published configuration is of another form: {error}", remedy=_WHOLE) from error


def _component_configs(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    dit = config["model"]["diffusion"]["config"]
    vae = config["model"]["pretransform"]["config"]
    encoder, decoder = vae["encoder"]["config"], vae["decoder"]["config"]
    conditioners = {entry["id"]: entry["config"] for entry in config["model"]["conditioning"]["configs"]}
    omni, speech = conditioners["omni_prompt"], conditioners["speech_prompt"]
    audio, sync = conditioners["audio_input_prompt"], conditioners["sync_feature"]
    return {
        "transformer": {
            "width": dit["embed_dim"],
            "depth": dit["depth"],
            "heads": dit["num_heads"],
            "latent_channels": dit["io_channels"],
            "conditioning_features": dit["cond_token_dim"],
        },
        "vae": {
            "encoder_hidden_size": encoder["channels"],
            "downsampling_ratios": encoder["strides"],
            "channel_multiples": encoder["c_mults"],
            "decoder_channels": decoder["channels"],
            "decoder_input_channels": decoder["latent_dim"],
            "audio_channels": decoder["out_channels"],
            "sampling_rate": config["sample_rate"],
        },
        "omni_projection": {"hidden_features": omni["out_features"], "max_tokens": omni["pad_length"]},
        "speech_encoder": {"positions": speech["seq_len"], "tokens": speech["proj_seq_len"]},
        "audio_encoder": {
            "sample_rate": audio["target_sample_rate"],
            "n_fft": audio["n_fft"],
            "hop_length": audio["hop_length"],
            "mel_bands": audio["n_mel_channels"],
            "tokens": audio["seq_len"],
        },
        "sync_encoder": {"frames": sync["sync_seq_dim"]},
    }


def build_components(config: Mapping[str, Any], thinker_config: Qwen2_5OmniThinkerConfig) -> dict[str, nn.Module]:
    """The components of a published configuration with their parameters on the meta device, by component name."""
    with init_empty_weights():
        components = {name: COMPONENTS[name](**arguments) for name, arguments in component_configs(config).items()}
        return components | {"thinker": COMPONENTS["thinker"](thinker_config)}


def load_published(
    checkpoint: Path, config: Path, thinker_config: Qwen2_5OmniThinkerConfig | None = None
) -> dict[str, nn.Module]:
    """Load a published checkpoint as components for `AudioOmniPipeline`, memory-mapped and in the file's dtypes.

    Args:
        checkpoint: the state dict, `model.ckpt`.
        config: the configuration, `Audio-Omni.json`.
        thinker_config: of a thinker other than Qwen2.5-Omni-3B's.

    Returns:
        The components by the names that the pipeline gives them, all but the processor.

    Raises:
        CheckpointInvalid: a file cannot be read, or a tensor is unknown, missing, doubled or of another shape.
    """
    components = build_components(read_config(config), thinker_config or published_thinker_config())
    assign(components, read_state_dict(checkpoint))
    return components


def assign(components: Mapping[str, nn.Module], state_dict: Mapping[str, Tensor]) -> None:
    """Give each published tensor to its component, in place and without a copy.

    Raises:
        CheckpointInvalid: as `load_published` says.
    """
    placed = place(state_dict, components)
    for name, component in components.items():
        check_complete(name, component.state_dict(), placed[name])
        component.load_state_dict(placed[name], assign=True)


def place(state_dict: Mapping[str, Tensor], components: Iterable[str]) -> dict[str, dict[str, Tensor]]:
    """Each component's own state dict, as views of the published tensors.

    Raises:
        CheckpointInvalid: a tensor is unknown, or two belong at the same place.
    """
    placed: dict[str, dict[str, Tensor]] = {name: {} for name in components}
    for published, tensor in state_dict.items():
        if published_keys.is_unused(published):
            continue
        component, key = published_keys.locate(published)
        if key in placed[component]:
            raise CheckpointInvalid(f"two tensors are {component}.{key}, the second {published}", field=published)
        placed[component][key] = published_keys.reshape(component, key, tensor)
    return placed


def check_complete(name: str, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raise CheckpointInvalid unless the component `name` finds the tensors that it wants, and no others."""
    for key in wanted.keys() ^ found.keys():
        what = "lacks the tensor" if key in wanted else "holds a tensor too many,"
        raise CheckpointInvalid(f"the checkpoint {what} {name}.{key}", field=f"{name}.{key}", remedy=_WHOLE)
    for key, tensor in found.items():
        if tensor.shape != wanted[key].shape:
            shapes = f"{list(tensor.shape)} instead of {list(wanted[key].shape)}"
            raise CheckpointInvalid(f"{name}.{key} is {shapes}", field=f"{name}.{key}", remedy=_WHOLE)


def read_config(path: Path) -> dict[str, Any]:
    """The published configuration. Raises CheckpointInvalid where the file cannot be read."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}", field=path.name, remedy=_WHOLE) from error
    if not isinstance(config, dict):
        raise CheckpointInvalid(f"{path} is no JSON object", field=path.name, remedy=_WHOLE)
    return config


def read_state_dict(path: Path, *, mmap: bool = True) -> dict[str, Tensor]:
    """The tensors of a published file, by name; never unpickles anything else.

    Args:
        path: a state dict, or a dict that holds one as `state_dict`.
        mmap: leave tensors on disk until they are used. Files in torch's older format cannot be.

    Raises:
        CheckpointInvalid: the file cannot be read, is no state dict, or would run code to be read.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:  # torch's own text advises to switch the protection off
        problem = f"{path} is damaged, or holds more than tensors: reading it would run code from the file"
        raise CheckpointInvalid(problem, field=path.name, remedy=_WHOLE) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise CheckpointInvalid(f"{path} cannot be read: {error}", field=path.name, remedy=_WHOLE) from error
    tensors = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else {}
    if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointInvalid(f"{path} holds something else than a state dict", field=path.name, remedy=_WHOLE)
    return tensors
