"""Words of a transcript: splitting a text into them, comparing, finding and joining them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

DENSE = "\u3005\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Signs of Chinese and Japanese, written without spaces: the inside of a regular expression's `[…]`."""
_WORD = re.compile(rf"[{DENSE}][^\w\s]*|[^\s{DENSE}]+")
_NEEDS_NO_SPACE = re.compile(rf"[{DENSE}\u3000-\u303f\uff00-\uffef]")

_ELIDED = r"(?:[cdjlmnst]|(?:jus|lors|puis|quoi)?qu)['’]"
_ELISION = re.compile(rf"(\W*{_ELIDED})([^\W\d_].*)", re.IGNORECASE)
_ELIDED_WORD = re.compile(rf"\W*{_ELIDED}", re.IGNORECASE)

_ONE_SIGN = str.maketrans(dict.fromkeys("’‘ʼ′`", "'") | dict.fromkeys("‐‑‒–—−", "-") | {"⁄": "/"})
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPOKEN_SIGNS = frozenset("+#%&@$€£¥°§=")
"""Signs with a name that is said: C++ is not C, 5% is not 5."""
_WITHOUT_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue"})


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
    """Split a text into words, each with the punctuation that touches it.

    Chinese and Japanese are split by the character, and French at its elisions: `l'arbre` is `l'` and `arbre`.
    """
    parts = (part for word in _WORD.findall(text) for part in _without_elision(word))
    return [part for part in parts if spoken_form(part)]


def _without_elision(word: str) -> tuple[str, ...]:
    found = _ELISION.fullmatch(word)
    return (found[1], found[2]) if found else (word,)


def is_elided(word: str) -> bool:
    """Whether the word ends in an elision, and so is said and written as one with the next."""
    return _ELIDED_WORD.fullmatch(word) is not None


def join_words(words: Sequence[str]) -> str:
    """Join words: spaces between them, but none within Chinese and Japanese, nor after an elision."""
    text, last = "", ""
    for word in words:
        dense = text and _NEEDS_NO_SPACE.match(text[-1]) and _NEEDS_NO_SPACE.match(word)
        text += word if dense or not text or is_elided(last) else f" {word}"
        last = word
    return text


@lru_cache(maxsize=8192)
def spoken_form(word: str) -> str:
    """Reduce a word to what is compared: what is said of it, without case, width and punctuation.

    Kept are letters, digits, signs that have a name (`+`, `%`), apostrophes and full stops within a word, and `.:,/-`
    between digits, where a comma does not group thousands.
    """
    plain = unicodedata.normalize("NFKC", word).casefold().translate(_ONE_SIGN)
    plain = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), plain)
    return "".join(char for at, char in enumerate(plain) if _is_spoken(plain, at)) + "'" * is_elided(plain.strip())


def _is_spoken(text: str, at: int) -> bool:
    char, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 2]
    if char in ":,/-":
        return before.isdigit() and after.isdigit()
    if char in "'.":
        return before.isalnum() and after.isalnum()
    return char.isalnum() or char in _SPOKEN_SIGNS or unicodedata.category(char).startswith("M")


def spoken_forms(words: Sequence[str]) -> list[str]:
    """Give the spoken form of each word."""
    return [spoken_form(word) for word in words]


def find_phrase(phrase: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    """Find where a phrase is said: first and last (exclusive) word of each place, in order, none of them overlapping.

    Exact matches come first. Where there is none, a hyphen may be a space or nothing, and umlauts be written out.

    Args:
        phrase: its words, at least one.
        heard: the words that are said.
    """
    wanted, forms = spoken_forms(phrase), spoken_forms(heard)
    size = len(wanted)
    exact = [(at, at + size) for at in range(len(forms) - size + 1) if forms[at : at + size] == wanted]
    return _apart(exact or _find_respelled(phrase, heard))


def _find_respelled(phrase: Sequence[str], heard: Sequence[str]) -> list[tuple[int, int]]:
    wanted, letters = _respelled(phrase), [_respelled([word]) for word in heard]
    hyphens = "-" in "".join(phrase)
    found: list[tuple[int, int]] = []
    for first in range(len(heard)):
        text = ""
        for last in range(first + 1, len(heard) + 1):
            text += letters[last - 1]
            if not wanted.startswith(text):
                break
            if text == wanted:
                # Without a hyphen on either side, two words and one are different words: a way, away.
                same_words = last - first == len(phrase) or hyphens or "-" in "".join(heard[first:last])
                found += [(first, last)] if same_words else []
    return found


def _respelled(words: Sequence[str]) -> str:
    return "".join(spoken_forms(words)).translate(_WITHOUT_UMLAUTS)


def _apart(spots: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    kept: list[tuple[int, int]] = []
    for spot in spots:
        if not kept or spot[0] >= kept[-1][1]:
            kept.append(spot)
    return kept
