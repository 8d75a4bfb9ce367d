"""Speech text as tokens of the speech encoder: characters, and pinyin for Chinese (docs/model.md, "Speech text")."""

from __future__ import annotations

import functools
import logging
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

_PLAIN = str.maketrans({";": ",", "“": '"', "”": '"', "‘": "'", "’": "'"})
_NO_SPACE_AFTER = frozenset(" :'\"")


class SpeechTokenizer:
    """Tokens and their vocabulary ids; safe to use from many threads at once.

    Args:
        vocab: one token a line of the checkpoint's vocab.txt; a token's place is its id, and place 0 is a space.
    """

    def __init__(self, vocab: list[str]) -> None:
        self._ids = {token: place for place, token in enumerate(vocab)}
        # Here, so that no text waits for the dictionaries.
        self._cutter = _cutter()
        _pinyin("")

    def split(self, text: str) -> list[str]:
        """The tokens of any text; never raises (docs/model.md, "Speech text", step 1)."""
        tokens: list[str] = []
        for segment in self._cutter.cut(text.translate(_PLAIN)):
            if _starts_a_word(segment, tokens):
                tokens.append(" ")
            tokens.extend(_spell(segment))
        return tokens

    def encode(self, text: str) -> list[int]:
        """The tokens' vocabulary ids, counted from 0; a token that the vocabulary lacks is 0, as a space is."""
        return [self._ids.get(token, 0) for token in self.split(text)]

    def unknown_share(self, text: str) -> float:
        """Which share of the tokens other than spaces the vocabulary lacks, 0 to 1; 0 for a text without any."""
        spoken = [token for token in self.split(text) if not token.isspace()]
        unknown = sum(token not in self._ids for token in spoken)
        return unknown / len(spoken) if spoken else 0.0


def _starts_a_word(segment: str, tokens: list[str]) -> bool:
    return segment.isascii() and len(segment) > 1 and bool(tokens) and tokens[-1] not in _NO_SPACE_AFTER


def _spell(segment: str) -> Iterator[str]:
    """The tokens of one jieba segment."""
    if all(_takes_three_bytes(character) for character in segment):
        yield from _spell_word(segment)
    else:
        for character in segment:
            yield from _spell_word(character) if _is_chinese(character) else character


def _spell_word(word: str) -> Iterator[str]:
    """Tones depend on the neighbours, so a word goes to pypinyin whole."""
    for character, sound in zip(word, _pinyin(word), strict=True):
        if _is_chinese(character):
            yield " "
        yield sound


def _pinyin(word: str) -> list[str]:
    from pypinyin import Style, lazy_pinyin  # half a second, after a worker's memory plan

    # `list`: characters without a reading come back one by one, not as one run, so that sounds match characters.
    # Declared to give one sound, though pypinyin takes several.
    return lazy_pinyin(word, style=Style.TONE3, tone_sandhi=True, errors=list)  # type: ignore[arg-type]


def _takes_three_bytes(character: str) -> bool:
    return "\u0800" <= character <= "\uffff"


def _is_chinese(character: str) -> bool:
    return "\u3100" <= character <= "\u9fff"


@functools.cache
def _cutter() -> Any:
    """jieba with its default dictionary, built once a process (about a second); cutting changes nothing in it."""
    with warnings.catch_warnings():
        # jieba's source has escapes that Python 3.12 warns of, and it imports pkg_resources.
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.WARNING)
    cutter = jieba.Tokenizer()
    # jieba's cache is read with marshal from a folder that anyone may write to: give it one of its own, used once.
    with tempfile.TemporaryDirectory(prefix="omnifleet-jieba-") as folder:
        cutter.tmp_dir = folder  # pyright: ignore[reportAttributeAccessIssue]  # None in jieba, until it is set
        cutter.initialize()
    return cutter
