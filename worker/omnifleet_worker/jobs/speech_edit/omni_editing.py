"""Audio-Omni as a model that edits words: its thinker hears and reads, its diffusion model speaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...media.decode import DecodedAudio
from ...models.audio_omni.chat import Chat
from ..job_context import JobContext
from ..model import ModelData
from .changes import Clause
from .editing_model import HeardSpeech, WordMaker
from .synthesis import SpeechInpainter
from .thinker import QUESTION_SYSTEM, question, read_answer
from .word_edits import WordEdit
from .words import Word

TRANSCRIPT_TOKENS = 2048
"""Longest transcript: five minutes of fast speech."""
ANSWER_TOKENS = 512


class OmniEditing:
    """See `EditingModel`.

    Args:
        model: describes the checkpoint, and holds the aligner.

    Raises:
        TaskNotSupported: the worker has no aligner.
    """

    def __init__(self, model: ModelData) -> None:
        self._model = model
        self._aligner = model.require_aligner()

    def hear(self, context: JobContext, wave: np.ndarray) -> HeardSpeech:
        """Let the thinker hear it, and the aligner find the words."""
        text = context.ask(self._model.prompts.transcription(audio=(wave,)), TRANSCRIPT_TOKENS)
        return HeardSpeech(text, lambda: self._aligner.align(wave, text))

    def read_request(self, context: JobContext, request: str, heard: str) -> Sequence[Clause]:
        """Ask the thinker what is meant."""
        chat = Chat(system=QUESTION_SYSTEM, user=question(request, heard))
        return read_answer(context.ask(chat, ANSWER_TOKENS), request)

    def word_maker(self, source: DecodedAudio, words: Sequence[Word], edits: Sequence[WordEdit]) -> WordMaker:
        """Inpaint: each gap is filled between the words around it."""
        return SpeechInpainter(source, words, self._model)
