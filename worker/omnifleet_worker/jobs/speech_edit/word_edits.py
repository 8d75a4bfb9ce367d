"""Maps the changes that a request may mean onto the words that were heard, which decide what it does mean."""

from __future__ import annotations

import difflib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from omnifleet_shared.errors import InvalidJob

from .changes import EVERY, Change, Clause, Delete, Insert, NewTranscript, Place, Position, Reading, Replace
from .instruction import asks_for_change
from .words import Word, find_phrase, join_words, split_words, spoken_form, spoken_forms

_SAME_SPEECH = 0.5
"""Share of words in common from which a text is taken for a new transcript of what was heard."""
MOST_READINGS = 8
"""Most readings that an error names."""


@dataclass(frozen=True, order=True)
class WordEdit:
    """Words `first` to `last` (exclusive; an insertion where they are equal) give way to `new`, which may be none."""

    first: int
    last: int
    new: tuple[str, ...]


@dataclass(frozen=True)
class Ambiguous:
    """A part of a request that has several readings.

    Args:
        readings: the edits of each, at most `MOST_READINGS` of them.
        counted: whether they differ in nothing but which of several places is meant.
    """

    readings: tuple[tuple[WordEdit, ...], ...]
    counted: bool


def is_transcript_of(text: str, heard: Sequence[str]) -> bool:
    """Whether a text is a new transcript: much like the words that were heard, and nothing that is asked for."""
    if asks_for_change(text):
        return False
    matcher = difflib.SequenceMatcher(None, spoken_forms(split_words(text)), spoken_forms(heard), autojunk=False)
    return matcher.ratio() >= _SAME_SPEECH


def find_edits(clauses: Sequence[Clause], heard: Sequence[str]) -> list[WordEdit] | Ambiguous:
    """Find where the changes apply among the words that were heard: in order, at least one word apart.

    Returns:
        The edits, or the first part of the request that may mean several things.

    Raises:
        InvalidJob: a word that is not said (`details["heard"]` tells what is), a change that says nothing, changes
            of the same words, or none at all.
    """
    edits: list[_Placed] = []
    for clause in clauses:
        found = _decide(clause, heard)
        if isinstance(found, Ambiguous):
            return found
        edits += found
    if not edits:
        raise InvalidJob("the recording says that already", "desc", "Say what is to change", _details(heard))
    return _joined(edits)


def find_edit_between(span: tuple[float, float], text: str | None, words: Sequence[Word]) -> WordEdit:
    """Return the edit that puts a text in place of the words whose middle lies in a span of seconds.

    Where there are none, the text is inserted between the words around the span.

    Args:
        span: its start and end, in order.
        text: what to say there; None deletes the words.
        words: of the recording, in order.

    Raises:
        InvalidJob: nothing to delete (`details["heard"]`), or a text without a word.
    """
    middles = [(word.start + word.end) / 2 for word in words]
    first, last = bisect_left(middles, span[0]), bisect_right(middles, span[1])
    if text is None and first >= last:
        problem = f"no word is said between {span[0]:g} and {span[1]:g} s"
        raise InvalidJob(
            problem, "span", "Give the seconds of the words that are to go", _details([word.text for word in words])
        )
    return WordEdit(first, max(first, last), () if text is None else _words_to_say(text))


_AFTER, _OTHER, _BEFORE = range(3)


@dataclass(frozen=True)
class _Placed:
    """An edit; `side` orders insertions between the same two words: after the first one, then before the second."""

    edit: WordEdit
    side: int = _OTHER


Choice = tuple[_Placed, ...]


def _decide(clause: Clause, heard: Sequence[str]) -> Choice | Ambiguous:
    """The edits of a clause: those of the first rank of which a reading fits what was heard."""
    for rank in clause:
        fitting = [reading for reading in rank if all(_spots_of(change, heard) for change in reading)]
        choices = {
            tuple(sorted(placed.edit for placed in choice)): choice
            for reading in fitting
            for choice in islice(_choices(reading, heard), MOST_READINGS + 1)
        }
        if len(choices) > 1:
            return Ambiguous(tuple(choices)[:MOST_READINGS], counted=len(fitting) == 1)
        if choices:
            return next(iter(choices.values()))
    raise _not_found(clause[0][0], heard)


def _choices(reading: Reading, heard: Sequence[str]) -> Iterator[Choice]:
    """All that one reading may mean: each place of words that are said at several, where it is not told which."""
    for chosen in product(*(_spots_of(change, heard) for change in reading)):
        yield tuple(placed for spots in chosen for placed in spots)


def _spots_of(change: Change, heard: Sequence[str]) -> list[Choice]:
    """What a change may do: one choice where it is plain, none where its words are not said."""
    match change:
        case NewTranscript(text):
            return [tuple(_Placed(edit) for edit in _differences(heard, _words_to_say(text)))]
        case Insert(new, where, anchor):
            words, side = _words_to_say(new), _AFTER if where == "after" else _BEFORE
            points = [[spot[where == "after"] for spot in spots] for spots in _spots(anchor, heard)]
            placed = [[_Placed(WordEdit(at, at, words), side) for at in chosen] for chosen in points]
        case Replace(old, new):
            words = _words_to_say(new)
            placed = [[_Placed(WordEdit(*spot, words)) for spot in spots] for spots in _spots(old, heard)]
        case Delete(old):
            placed = [[_Placed(WordEdit(*spot, ())) for spot in spots] for spots in _spots(old, heard)]
    return [tuple(choice) for choice in placed]


def _spots(place: Place, heard: Sequence[str]) -> list[list[tuple[int, int]]]:
    """The places that may be meant, each of them several where all are."""
    if isinstance(place, Position):
        first = place.which - 1 if place.which > 0 else len(heard) + place.which - place.size + 1
        last = first + place.size
        return [[(first, last)]] if 0 <= first < last <= len(heard) else []
    said = find_phrase(_words_to_say(place.words), heard)
    if place.which is None:
        return [[spot] for spot in said]
    if place.which == EVERY:
        return [said] if said else []
    number = place.which - 1 if place.which > 0 else len(said) + place.which
    return [[said[number]]] if 0 <= number < len(said) else []


def _differences(heard: Sequence[str], new: Sequence[str]) -> list[WordEdit]:
    matcher = difflib.SequenceMatcher(None, spoken_forms(heard), spoken_forms(new), autojunk=False)
    return [WordEdit(a, b, tuple(new[c:d])) for tag, a, b, c, d in matcher.get_opcodes() if tag != "equal"]


def _not_found(reading: Reading, heard: Sequence[str]) -> InvalidJob:
    missing = next(change for change in reading if not _spots_of(change, heard))
    assert not isinstance(missing, NewTranscript)
    place = missing.anchor if isinstance(missing, Insert) else missing.old
    text = join_words(heard)
    short = text if len(text) <= 300 else f"{text[:300]}…"
    if isinstance(place, Position):
        return InvalidJob(f"the recording has {len(heard)} words; heard was: {short}", "desc", "", _details(heard))
    times = len(find_phrase(split_words(place.words), heard))
    often = f"{place.words!r} is said {times} times only" if times else f"{place.words!r} is not said"
    near = difflib.get_close_matches(spoken_form(place.words), spoken_forms(heard), n=1)
    meant = f"Did you mean {near[0]!r}? " if near and not times else ""
    return InvalidJob(f"{often}; heard was: {short}", "desc", f"{meant}Name words as they were heard", _details(heard))


def _joined(edits: Sequence[_Placed]) -> list[WordEdit]:
    """Edits that touch become one, so that between two there is always something to come back to."""
    joined: list[WordEdit] = []
    # Stable: insertions at one place stay in the order in which they were asked for.
    for placed in sorted(edits, key=lambda one: (one.edit.first, one.edit.last, one.side)):
        edit = placed.edit
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


def _details(heard: Sequence[str]) -> dict[str, str]:
    return {"heard": join_words(heard)}
