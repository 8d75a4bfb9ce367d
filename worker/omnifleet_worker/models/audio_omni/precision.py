"""Which dtype each weight of a checkpoint has once it is loaded."""

from __future__ import annotations

import torch

from omnifleet_worker.models.audio_omni.pipeline import COMPONENTS, IN_CHOSEN_DTYPE


def dtype_on_load(component: str, key: str, chosen: torch.dtype) -> torch.dtype:
    """Dtype that `AudioOmniPipeline.from_pretrained` gives a weight.

    Args:
        component: its name in the pipeline.
        key: the weight's in the component's state dict.
        chosen: the dtype that is asked for; it counts for the transformer and the thinker alone, and not for those
            of their modules that are always float32.
    """
    if component not in IN_CHOSEN_DTYPE:
        return torch.float32
    always_float32 = getattr(COMPONENTS[component], "_keep_in_fp32_modules", None) or ()
    return torch.float32 if set(key.split(".")).intersection(always_float32) else chosen
