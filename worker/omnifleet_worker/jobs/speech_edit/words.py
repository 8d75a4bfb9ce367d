"""Words of a transcript: splitting a text into them, comparing them, and joining them again."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_DENSE = "\u3005\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_DENSE}][^\w\s]*|[^\s{_DENSE}]+")
_NEEDS_NO_SPACE = re.compile(rf"[{_DENSE}\u3000-\u303f\uff00-\uffef]")


@dataclass(frozen=True)
class Word:
    """A word and its time in the recording.

    Args:
        text: as in the transcript, with the punctuation that touches it.
        start: seconds from the recording's beginning.
        end: likewise, after `start`.
    """

    text: str
    start: float
    end: float


def split_words(text: str) -> list[str]:
    """Split a text into words, each with the punctuation that touches it; Chinese and Japanese by the character."""
    return [word for word in _WORD.findall(text) if spoken_form(word)]


def join_words(words: Sequence[str]) -> str:
    """Join words: spaces between them, but none within Chinese and Japanese."""
    text = ""
    for word in words:
        dense = text and _NEEDS_NO_SPACE.match(text[-1]) and _NEEDS_NO_SPACE.match(word)
        text += word if dense or not text else f" {word}"
    return text


def spoken_form(word: str) -> str:
    """Reduce a word to what is compared: letters, digits and marks, without case, width and punctuation."""
    plain = unicodedata.normalize("NFKC", word).casefold()
    return "".join(char for char in plain if char.isalnum() or unicodedata.category(char).startswith("M"))
