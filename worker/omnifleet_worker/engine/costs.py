"""What an active request holds of the device's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models.audio_omni.decoding import ThinkerSession
    from .diffusion_batch import Clip

CONTEXT_COPIES = 2
"""Of a clip's context: its own, and its place in the batch that is kept as long as nobody joins or leaves."""
CACHE_COPIES = 3
"""Of an answer's keys and values: its own, as much again where it is padded to a longer one, and once more while the
batch is put together anew."""


@dataclass(frozen=True, kw_only=True)
class RequestCosts:
    """Costs in bytes.

    Attributes:
        clip_activations: of a clip's rows in a step.
        chat_token: keys and values of one token of an answer.
    """

    clip_activations: int = 0
    chat_token: int = 0

    def of_clip(self, clip: Clip) -> int:
        """Of a clip that is prepared."""
        return CONTEXT_COPIES * sum(tensor.nbytes for tensor in clip.tensors) + self.clip_activations

    def of_chat(self, session: ThinkerSession) -> int:
        """Of an answer, at its longest."""
        return CACHE_COPIES * session.most_tokens * self.chat_token
