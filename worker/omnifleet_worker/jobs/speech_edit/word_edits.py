"""Maps the requested changes onto the words of the transcript."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from omnifleet_shared.errors import InvalidJob

from .instruction import EVERY, Change, Delete, Insert, NewTranscript, Replace
from .words import join_words, split_words, spoken_form

_SAME_SPEECH = 0.5
"""Share of words in common from which a text is taken for a new transcript of what was heard."""


@dataclass(frozen=True, order=True)
class WordEdit:
    """Words `first` to `last` (exclusive; an insertion where they are equal) give way to `new`, which may be none."""

    first: int
    last: int
    new: tuple[str, ...]


def is_transcript_of(text: str, heard: Sequence[str]) -> bool:
    """Whether a text is a new transcript, much like the words that were heard, and not a request."""
    return difflib.SequenceMatcher(None, _forms(split_words(text)), _forms(heard)).ratio() >= _SAME_SPEECH


def find_edits(changes: Sequence[Change], heard: Sequence[str]) -> list[WordEdit]:
    """Find where the changes apply among the words that were heard: in order, at least one word apart.

    Raises:
        InvalidJob: a word that is not said (`details["heard"]` tells what is), a change that says nothing, changes
            of the same words, or none at all.
    """
    edits = sorted(edit for change in changes for edit in _edits_of(change, heard))
    if not edits:
        raise InvalidJob("the recording says that already", "desc", "Say what is to change", _details(heard))
    return _joined(edits)


def _edits_of(change: Change, heard: Sequence[str]) -> list[WordEdit]:
    match change:
        case NewTranscript(text):
            return _differences(heard, _words_to_say(text))
        case Insert(new, where, anchor, occurrence):
            spots = _occurrences(anchor, occurrence, heard)
            return [WordEdit(at, at, _words_to_say(new)) for at in (spot[where == "after"] for spot in spots)]
        case Replace(old, new, occurrence):
            return [WordEdit(*spot, _words_to_say(new)) for spot in _occurrences(old, occurrence, heard)]
        case Delete(old, occurrence):
            return [WordEdit(*spot, ()) for spot in _occurrences(old, occurrence, heard)]


def _differences(heard: Sequence[str], new: Sequence[str]) -> list[WordEdit]:
    matcher = difflib.SequenceMatcher(None, _forms(heard), _forms(new), autojunk=False)
    return [WordEdit(a, b, tuple(new[c:d])) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _occurrences(phrase: str, occurrence: int, heard: Sequence[str]) -> list[tuple[int, int]]:
    forms, wanted = _forms(heard), _forms(_words_to_say(phrase))
    size = len(wanted)
    spots: list[tuple[int, int]] = []
    for at in range(len(forms) - size + 1):
        if forms[at : at + size] == wanted and (not spots or at >= spots[-1][1]):
            spots.append((at, at + size))
    if occurrence == EVERY and spots:
        return spots
    position = occurrence - 1 if occurrence > 0 else len(spots) + occurrence
    if not 0 <= position < len(spots):
        raise _not_found(phrase, len(spots), heard)
    return [spots[position]]


def _not_found(phrase: str, times: int, heard: Sequence[str]) -> InvalidJob:
    text = join_words(heard)
    short = text if len(text) <= 300 else f"{text[:300]}…"
    often = f"{phrase!r} is said {times} times only" if times else f"{phrase!r} is not said"
    near = difflib.get_close_matches(spoken_form(phrase), _forms(heard), n=1)
    meant = f"Did you mean {near[0]!r}? " if near and not times else ""
    return InvalidJob(f"{often}; heard was: {short}", "desc", f"{meant}Name words as they were heard", _details(heard))


def _joined(edits: Sequence[WordEdit]) -> list[WordEdit]:
    """Edits that touch become one, so that between two there is always something to come back to."""
    joined: list[WordEdit] = []
    for edit in edits:
        if joined and edit.first < joined[-1].last:
            raise InvalidJob("two changes are of the same words", "desc", "Name each word in one change only")
        if joined and edit.first == joined[-1].last:
            before = joined.pop()
            edit = WordEdit(before.first, edit.last, before.new + edit.new)
        joined.append(edit)
    return joined


def _words_to_say(text: str) -> tuple[str, ...]:
    words = tuple(split_words(text))
    if not words:
        raise InvalidJob(f"{text[:80]!r} holds no word that could be said", "desc", "Name words")
    return words


def _forms(words: Sequence[str]) -> list[str]:
    return [spoken_form(word) for word in words]


def _details(heard: Sequence[str]) -> dict[str, str]:
    return {"heard": join_words(heard)}
