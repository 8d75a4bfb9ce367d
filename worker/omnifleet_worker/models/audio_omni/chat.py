"""What the thinker is asked, as text and media. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

AUDIO_MARKS = "<|audio_bos|><|AUDIO|><|audio_eos|>"
VIDEO_MARKS = "<|vision_bos|><|VIDEO|><|vision_eos|>"


@dataclass(frozen=True, eq=False)
class Chat:
    """What is asked of the thinker, after what was asked and answered before, if anything.

    Args:
        system: the task's system sentence, from the checkpoint.
        user: what is asked. It may place the media itself with `AUDIO_MARKS` and `VIDEO_MARKS`, once for each clip;
            media that no turn places come before the user's first, audio first.
        audio: mono waves, float32, 16 kHz.
        video: frames, uint8 [T, H, W, 3].
        earlier: what the user said before and what was answered, in pairs, the oldest first.
        begun: what the answer begins with, where it was written in part already.
    """

    system: str
    user: str
    audio: tuple[np.ndarray, ...] = ()
    video: tuple[np.ndarray, ...] = ()
    earlier: tuple[tuple[str, str], ...] = ()
    begun: str = ""

    @property
    def words(self) -> str:
        """Everything that was said, by either side, save the system sentence."""
        return "\n".join([*(turn for pair in self.earlier for turn in pair), self.user])

    @property
    def text(self) -> str:
        """The chat as the model was trained to read it (docs/model.md, "Tasks")."""
        history = "".join(
            f"{user}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n<|im_start|>user\n"
            for user, answer in self.earlier
        )
        return (
            f"<|im_start|>system\n{self.system}<|im_end|>\n"
            f"<|im_start|>user\n{self._media_marks}{history}{self.user}<|im_end|>\n"
            f"<|im_start|>assistant\n{self.begun}"
        )

    def followed_by(self, answer: str, user: str) -> Chat:
        """The chat after its answer, with the next thing that the user says."""
        return replace(self, user=user, earlier=(*self.earlier, (self.user, answer)))

    @property
    def _media_marks(self) -> str:
        audio = "" if AUDIO_MARKS in self.words else AUDIO_MARKS * len(self.audio)
        video = "" if VIDEO_MARKS in self.words else VIDEO_MARKS * len(self.video)
        return audio + video
