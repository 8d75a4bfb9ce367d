"""What active requests, and captured steps, hold of the device's memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.audio_omni.adapters.low_rank import AppliedAdapter
    from ..models.audio_omni.thinker.decoding import DecodeState
    from .diffusion_batch import DiffusionState

CONTEXT_COPIES = 2
"""Of a clip's context: its own, and its place in the batch that is kept as long as nobody joins or leaves."""
ADAPTER_PLACES = 2
"""In a batch, of a clip that is the only one with an adapter; with others it needs one alone."""
CAPTURED_CLIPS = 8
"""Clips that a captured step is for at most. Measured on an H100: a step of 1 takes 12.5 ms as a graph and 31.0 ms
else, of 2 23.6 and 29.7, of 4 47.6 and 50.5, of 8 95.4 and 100.8."""
CAPTURED_LENGTHS = (512, 1024)
"""Context tokens that shorter contexts are padded to, besides the longest there can be. Most prompts have some 300;
padded, cross-attention takes 0.6 % of a step more."""


def captured_shapes(longest: int, most_clips: int = CAPTURED_CLIPS) -> list[tuple[int, int]]:
    """List the clips and context tokens of every step that is captured: many short contexts, or few long ones.

    Args:
        longest: context tokens that a clip can have.
        most_clips: that share a step.
    """
    lengths = (*(one for one in CAPTURED_LENGTHS if one < longest), longest)
    most = min(CAPTURED_CLIPS, most_clips)
    shared = max(longest, most * lengths[0])
    return [(clips, length) for length in lengths for clips in range(1, most + 1) if clips * length <= shared]


def captured_tokens(shapes: Sequence[tuple[int, int]]) -> int:
    """Context tokens of the largest of those shapes: they all share its memory."""
    return max(clips * length for clips, length in shapes)


@dataclass(frozen=True, kw_only=True)
class RequestCosts:
    """Costs in bytes.

    Attributes:
        clip_activations: of a clip's rows in a step.
        longest_clip: of everything that a clip keeps on the device at its longest.
        longest_chat: of a prompt at its longest, until it is read.
        adapter_place: of a place for an adapter in a batch, at the largest rank.
    """

    clip_activations: int = 0
    longest_clip: int = 0
    longest_chat: int = 0
    adapter_place: int = 0

    @property
    def most_of_clip(self) -> int:
        """Of any clip, before it is prepared."""
        return CONTEXT_COPIES * self.longest_clip + self.clip_activations

    def of_clip(self, state: DiffusionState) -> int:
        """Of a clip that is prepared."""
        own = CONTEXT_COPIES * sum(tensor.nbytes for tensor in state.tensors) + self.clip_activations
        return own + self.of_adapter(state.adapter)

    def of_adapter(self, adapter: AppliedAdapter | None) -> int:
        """Of a clip's adapter: itself, which may have left the cache meanwhile, and what a batch pads it to."""
        return 0 if adapter is None else adapter.weights.nbytes + ADAPTER_PLACES * self.adapter_place

    def of_chat(self, state: DecodeState) -> int:
        """Of an answer whose prompt is still to be read; its keys and values have memory of their own."""
        return sum(tensor.nbytes for tensor in state.tensors)
