"""The device of a worker's settings, and the dtype that suits it."""

from __future__ import annotations

import torch
from omnifleet_shared.errors import InvalidSetting


def choose_device(name: str) -> torch.device:
    """Give the device of the setting: `auto` is the first GPU that is seen, else the CPU. Raises InvalidSetting."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InvalidSetting(f"{name!r} is not a device here", "OMNIFLEET_DEVICE", "Use auto, cuda or cpu") from error
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Give the dtype of the setting: `auto` is bfloat16 on a GPU and float32 on a CPU."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.float32 if name == "float32" else torch.bfloat16
