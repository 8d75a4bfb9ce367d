"""A model that speaks and a recogniser, together a model that edits words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from omnifleet_shared.errors import InvalidJob

from ....jobs.job_context import JobContext
from ....jobs.speech_edit.changes import Clause
from ....jobs.speech_edit.editing_model import HeardSpeech, WordMaker
from ....jobs.speech_edit.thinker import EXAMPLES
from ....jobs.speech_edit.word_edits import WordEdit
from ....jobs.speech_edit.words import Word, join_words
from ....media.decode import DecodedAudio
from ..recogniser import RATE, Recogniser, recognise_parts
from .pauses import settle_words
from .word_synthesiser import SpeakingModel, WordSynthesiser


class SpeechModelEditing:
    """See `EditingModel`.

    Args:
        model: speaks.
        recogniser: hears.
        language: that is spoken; None where the job names none.
    """

    def __init__(self, model: SpeakingModel, recogniser: Recogniser, language: str | None) -> None:
        self._model = model
        self._recogniser = recogniser
        self._language = language

    def hear(self, context: JobContext, wave: np.ndarray) -> HeardSpeech:
        """Let the recogniser hear it, which tells the times along with the words."""
        words = recognise_parts(context, self._recogniser, wave, self._language)
        return HeardSpeech(join_words([word.text for word in words]), lambda: settle_words(words, wave, RATE))

    def read_request(self, context: JobContext, request: str, heard: str) -> Sequence[Clause]:
        """Refuse what only a model that understands could read."""
        raise InvalidJob("it cannot be read as changes of words", "desc", f"Write for example: {EXAMPLES}")

    def word_maker(self, source: DecodedAudio, words: Sequence[Word], edits: Sequence[WordEdit]) -> WordMaker:
        """Synthesise: each edit's words are said in a phrase, and cut out of it."""
        return WordSynthesiser(self._model, self._recogniser, self._language, source, words, edits)
