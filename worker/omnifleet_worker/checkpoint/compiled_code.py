"""Compiled kernels beside the checkpoint, so that the next worker on such a machine compiles nothing.

They are torch's own cache artifacts (`torch.compiler.save_cache_artifacts`): code, to be trusted as much as the
checkpoint that they lie beside. torch takes none whose code version is not its own.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from .code_files import name_code, read_code, write_code
from .manifest import COMPILED

logger = logging.getLogger(__name__)


class CompiledCode:
    """The file of compiled code that fits one checkpoint, this device and these versions.

    Args:
        checkpoint: folder of the checkpoint; the code is kept in its folder `compiled`.
        device: that the code runs on.
        variant: what else decides what is compiled, such as the dtype.
    """

    def __init__(self, checkpoint: Path, device: torch.device, variant: str) -> None:
        self.path = checkpoint / COMPILED / name_code(_device_name(device), variant)

    def load(self) -> bool:
        """Give the compiler what an earlier worker compiled; return whether there was any."""
        try:
            artifacts = read_code(self.path)
        except FileNotFoundError:
            return False
        if artifacts is None:
            return False
        if torch.compiler.load_cache_artifacts(artifacts) is None:  # torch has logged why
            extra = {"action": "compiled_code_unreadable"}
            logger.warning("%s is of no use, compiling anew", self.path, extra=extra)
            return False
        return True

    def save(self) -> None:
        """Keep what this process compiled or loaded; a folder that cannot be written to is logged and left alone."""
        saved = torch.compiler.save_cache_artifacts()
        if saved is None:
            return
        data, _ = saved
        try:
            write_code(self.path, data)
        except OSError as error:
            extra = {"action": "compiled_code_not_kept"}
            logger.warning(
                "the next start will compile again, for %s cannot be written: %s", self.path, error, extra=extra
            )
        else:
            about = {"action": "compiled_code_kept", "bytes": len(data)}
            logger.info("kept %.1f MB of compiled code as %s", len(data) / 1e6, self.path, extra=about)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
