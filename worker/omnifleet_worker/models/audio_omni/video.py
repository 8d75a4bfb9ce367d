"""What the model sees of a video: frames for the thinker, segments for Synchformer. docs/model.md, "Tasks".

Both come of the same frames, taken 25 a second. A video shorter than the model's 10 s stands still at its end:
the published model fills the thinker's frames so, and here Synchformer's too, so that both see the same.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRAMES_PER_SECOND = 25
"""Pace of the frames that both functions take."""
WINDOW_SECONDS = 10
"""Length of video that the model sees."""
FRAME_SIDE = 224
"""Pixels of Synchformer's frames, which are square."""
SEGMENT_FRAMES = 16
"""Of a segment, as Synchformer reads it."""

_THINKER_FRAMES_PER_SECOND = 5
_SEGMENT_STRIDE = 8


def thinker_frames(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Five frames a second over 10 s, the last repeated to fill.

    Args:
        frames: uint8 [T, H, W, 3] at 25 a second, T > 0; those after 10 s are left out.

    Returns:
        uint8 [50, H, W, 3].
    """
    chosen = frames[:: FRAMES_PER_SECOND // _THINKER_FRAMES_PER_SECOND][: WINDOW_SECONDS * _THINKER_FRAMES_PER_SECOND]
    missing = WINDOW_SECONDS * _THINKER_FRAMES_PER_SECOND - len(chosen)
    return np.concatenate([chosen, chosen[-1:].repeat(missing, axis=0)])


def synchformer_segments(frames: Tensor) -> Tensor:
    """Segments of 16 frames, one every 8 frames, of 10 s of video, the last frame repeated to fill.

    Args:
        frames: uint8 [T, H, W, 3] at 25 a second, T > 0; those after 10 s are left out.

    Returns:
        float32 [30, 16, 3, H, W] in ±1 on the frames' device; neighbours share memory, so it is not to be written to.
    """
    window = frames[: WINDOW_SECONDS * FRAMES_PER_SECOND].permute(0, 3, 1, 2)
    segments = _fill(window / 127.5 - 1).unfold(0, SEGMENT_FRAMES, _SEGMENT_STRIDE)
    return segments.permute(0, 4, 1, 2, 3)


def _fill(pictures: Tensor) -> Tensor:
    """Repeat the last of [T, 3, H, W] up to 10 s."""
    missing = WINDOW_SECONDS * FRAMES_PER_SECOND - len(pictures)
    return torch.cat([pictures, pictures[-1:].expand(missing, -1, -1, -1)])
