"""What an active request holds of the device's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.audio_omni.thinker.decoding import DecodeState
    from .diffusion_batch import Clip

CONTEXT_COPIES = 2
"""Of a clip's context: its own, and its place in the batch that is kept as long as nobody joins or leaves."""


@dataclass(frozen=True, kw_only=True)
class RequestCosts:
    """Costs in bytes.

    Attributes:
        clip_activations: of a clip's rows in a step.
    """

    clip_activations: int = 0

    def of_clip(self, clip: Clip) -> int:
        """Of a clip that is prepared."""
        return CONTEXT_COPIES * sum(tensor.nbytes for tensor in clip.tensors) + self.clip_activations

    def of_chat(self, state: DecodeState) -> int:
        """Of an answer whose prompt is still to be read; its keys and values have memory of their own."""
        return sum(tensor.nbytes for tensor in state.tensors)
