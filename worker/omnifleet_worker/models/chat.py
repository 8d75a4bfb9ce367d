"""What the thinker is asked, as text and media. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

AUDIO_MARKS = "<|audio_bos|><|AUDIO|><|audio_eos|>"
VIDEO_MARKS = "<|vision_bos|><|VIDEO|><|vision_eos|>"


@dataclass(frozen=True, eq=False)
class Chat:
    """One turn asked of the thinker.

    Args:
        system: the task's system sentence, from the checkpoint.
        user: what is asked. It may place the media itself with `AUDIO_MARKS` and `VIDEO_MARKS`, once for each clip;
            media that it does not place come before it, audio first.
        audio: mono waves, float32, 16 kHz.
        video: frames, uint8 [T, H, W, 3].
    """

    system: str
    user: str
    audio: tuple[np.ndarray, ...] = ()
    video: tuple[np.ndarray, ...] = ()

    @property
    def text(self) -> str:
        """The chat as the model was trained to read it (MODEL.md, "Tasks")."""
        return (
            f"<|im_start|>system\n{self.system}<|im_end|>\n"
            f"<|im_start|>user\n{self._media_marks}{self.user}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )

    @property
    def _media_marks(self) -> str:
        audio = "" if AUDIO_MARKS in self.user else AUDIO_MARKS * len(self.audio)
        video = "" if VIDEO_MARKS in self.user else VIDEO_MARKS * len(self.video)
        return audio + video
