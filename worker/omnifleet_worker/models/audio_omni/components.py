"""What is known of a checkpoint's components without their classes, whose libraries take seconds to import."""

from __future__ import annotations

import torch

PIPELINE = "AudioOmniPipeline"
"""Class that a checkpoint's index names."""

CONFIGS = {
    "transformer": "config.json",
    "vae": "config.json",
    "thinker": "config.json",
    "processor": "processor_config.json",
    "omni_projection": "config.json",
    "speech_encoder": "config.json",
    "audio_encoder": "config.json",
    "sync_encoder": "config.json",
    "synchformer": "config.json",
}
"""File that describes each component. Its name is also its subfolder."""

OPTIONAL = frozenset({"synchformer"})
"""Components that a checkpoint may lack."""

ALWAYS_FLOAT32 = {"transformer": frozenset({"time_proj", "norm1", "norm2", "norm3"}), "thinker": frozenset[str]()}
"""Components whose weights have the dtype that is chosen at load, with those of their modules that are float32 as all
other components are."""


def dtype_on_load(component: str, key: str, chosen: torch.dtype) -> torch.dtype:
    """Dtype that `AudioOmniPipeline.from_pretrained` gives a weight.

    Args:
        component: its name in the pipeline.
        key: the weight's in the component's state dict.
        chosen: the dtype that is asked for; it counts for the transformer and the thinker alone, and not for those
            of their modules that are always float32.
    """
    if component not in ALWAYS_FLOAT32:
        return torch.float32
    return torch.float32 if ALWAYS_FLOAT32[component].intersection(key.split(".")) else chosen
