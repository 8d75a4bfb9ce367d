"""What an edit of words needs of the model that a worker runs, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...media.decode import DecodedAudio
from ..job_context import JobContext
from .changes import Clause
from .splice import Patch, Span
from .word_edits import WordEdit
from .words import Word


@dataclass(frozen=True)
class HeardSpeech:
    """What is said in a recording.

    Attributes:
        text: all of it.
        find_words: finds when each word of the text is said. Raises InvalidJob where it cannot be told.
    """

    text: str
    find_words: Callable[[], list[Word]]


@dataclass(frozen=True)
class Place:
    """Where new words go.

    Attributes:
        edit: that says them.
        span: of the source, as the times of the words around it have it.
        room: first sample, and one past the last, between which it could be put as well.
    """

    edit: WordEdit
    span: Span
    room: tuple[int, int]


@dataclass(frozen=True, eq=False)
class NewSpeech:
    """New words that were made.

    Attributes:
        patches: for each place what goes there, within its room.
        warnings: of words that may not be what was asked for.
    """

    patches: list[Patch]
    warnings: tuple[str, ...] = ()


class WordMaker(Protocol):
    """Makes new words for one recording."""

    def check(self, wanted: Sequence[Place]) -> None:
        """Refuse new words that `make` would refuse, with the same errors; nothing is made."""
        ...

    def make(self, context: JobContext, wanted: Sequence[Place]) -> NewSpeech:
        """Make what goes to each place.

        Raises:
            InvalidJob: new words take longer to say than can be made at once.
            LanguageNotSupported: new words in signs that the model has no sound for.
            OmnifleetError: of the engine.
        """
        ...


class EditingModel(Protocol):
    """Hears recordings, reads requests in free words, and makes new words."""

    def hear(self, context: JobContext, wave: np.ndarray) -> HeardSpeech:
        """Hear a recording, mono float32 [n] at 16 kHz. Raises OmnifleetError."""
        ...

    def read_request(self, context: JobContext, request: str, heard: str) -> Sequence[Clause]:
        """Read a request that is neither in a form that the grammar knows nor a transcript. Raises InvalidJob."""
        ...

    def word_maker(self, source: DecodedAudio, words: Sequence[Word], edits: Sequence[WordEdit]) -> WordMaker:
        """Return what makes new words for a recording whose words are known."""
        ...
