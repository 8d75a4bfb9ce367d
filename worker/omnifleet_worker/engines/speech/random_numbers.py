"""The random numbers of one text, for models that draw from torch's own generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class OwnRandomNumbers:
    """Random numbers that nobody else draws from: torch's generators are as they were behind each block.

    Args:
        seed: of all of them.
        device: on which numbers are drawn, besides the CPU.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._devices = [device] if device.type == "cuda" else []
        self._seed: int | None = seed
        self._cpu = torch.get_rng_state()
        self._gpu: list[torch.Tensor] = []

    @contextmanager
    def drawn(self) -> Iterator[None]:
        """Draw them in the block, from where the block before came to."""
        with torch.random.fork_rng(self._devices):
            if self._seed is None:
                torch.set_rng_state(self._cpu)
                for device, state in zip(self._devices, self._gpu, strict=True):
                    torch.cuda.set_rng_state(state, device)
            else:
                torch.manual_seed(self._seed)
                self._seed = None
            yield
            self._cpu = torch.get_rng_state()
            self._gpu = [torch.cuda.get_rng_state(device) for device in self._devices]
