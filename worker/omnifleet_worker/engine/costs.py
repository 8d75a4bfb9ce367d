"""What an active request holds of the device's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.audio_omni.thinker.decoding import DecodeState
    from .diffusion_batch import DiffusionState

CONTEXT_COPIES = 2
"""Of a clip's context: its own, and its place in the batch that is kept as long as nobody joins or leaves."""
CAPTURED_CLIPS = 4
"""Clips that a captured step is for at most. Measured on an H100: a step of 1 takes 12.6 ms as a graph and 23.9 ms
else, of 2 25.4 and 29.7, of 4 49.9 and 53.8; from 8 on the host launches ahead of the device in any case."""


@dataclass(frozen=True, kw_only=True)
class RequestCosts:
    """Costs in bytes.

    Attributes:
        clip_activations: of a clip's rows in a step.
    """

    clip_activations: int = 0

    def of_clip(self, state: DiffusionState) -> int:
        """Of a clip that is prepared."""
        return CONTEXT_COPIES * sum(tensor.nbytes for tensor in state.tensors) + self.clip_activations

    def of_chat(self, state: DecodeState) -> int:
        """Of an answer whose prompt is still to be read; its keys and values have memory of their own."""
        return sum(tensor.nbytes for tensor in state.tensors)
