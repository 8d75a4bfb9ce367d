"""The phrases in which new words are said, and the new words in what a recogniser hears of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from omnifleet_shared.schema.transcript import ends_sentence

from ....jobs.speech_edit.word_edits import WordEdit
from ....jobs.speech_edit.words import Word, join_words, spoken_forms

AROUND_WORDS = 6
"""Most words before the new ones, and after them, that are said along: for their melody, and to join at."""
PAUSE_SECONDS = 0.8
"""Silence that ends a phrase."""


@dataclass(frozen=True)
class Phrase:
    """New words, and the words around them that are said along.

    Attributes:
        before: words before the new ones.
        new: to be cut out of it.
        after: words after them.
    """

    before: tuple[str, ...]
    new: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def text(self) -> str:
        """All of it, as a model that speaks likes it: ended by a mark."""
        text = join_words([*self.before, *self.new, *self.after])
        return f"{text}." if text[-1].isalnum() else text


@dataclass(frozen=True)
class FoundWords:
    """The new words of a phrase in what was heard.

    Attributes:
        first: number of the first word heard that is new.
        last: one more than that of the last.
    """

    first: int
    last: int


def phrases(edit: WordEdit, edits: Sequence[WordEdit], words: Sequence[Word], most_text: int) -> Iterator[Phrase]:
    """Iterate over the phrases to say new words in, the best first; the last one is of these words alone.

    Args:
        edit: the one.
        edits: all of the recording, in order: no phrase says words that change.
        words: of the recording.
        most_text: characters that can be said at once.
    """
    new = _with_mark(edit, words)
    earliest = max((one.last for one in edits if one.last <= edit.first and one is not edit), default=0)
    latest = min((one.first for one in edits if one.first >= edit.last and one is not edit), default=len(words))
    before, after = _before(words[earliest : edit.first]), _after(words[edit.last : latest])
    whole = Phrase(before, new, after)
    if (before or after) and len(whole.text) <= most_text:
        yield whole
    yield Phrase((), new, ())


def _with_mark(edit: WordEdit, words: Sequence[Word]) -> tuple[str, ...]:
    """The new words, ended by the comma or full stop of the old ones: it makes their melody."""
    if edit.first == edit.last or not edit.new[-1][-1].isalnum():
        return edit.new
    old = words[edit.last - 1].text
    mark = old[len(old.rstrip(".,;:!?…。，、；：！？")) :]
    return (*edit.new[:-1], edit.new[-1] + mark)


def _before(words: Sequence[Word]) -> tuple[str, ...]:
    taken: list[Word] = []
    for word in reversed(words[-AROUND_WORDS:]):
        if ends_sentence(word.text) or (taken and taken[-1].start - word.end > PAUSE_SECONDS):
            break
        taken.append(word)
    return tuple(word.text for word in reversed(taken))


def _after(words: Sequence[Word]) -> tuple[str, ...]:
    taken: list[Word] = []
    for word in words[:AROUND_WORDS]:
        if taken and (ends_sentence(taken[-1].text) or word.start - taken[-1].end > PAUSE_SECONDS):
            break
        taken.append(word)
    return tuple(word.text for word in taken)


def find_new_words(phrase: Phrase, heard: Sequence[str]) -> FoundWords | None:
    """Find the new words of a phrase in what was heard, whatever was heard in their place.

    Returns:
        None where the words beside them were not heard, so that nobody knows where to cut.
    """
    said = spoken_forms([*phrase.before, *phrase.new, *phrase.after])
    forms = spoken_forms(heard)
    places = dict[int, int]()
    for a, b, size in difflib.SequenceMatcher(None, said, forms, autojunk=False).get_matching_blocks():
        places |= {a + step: b + step for step in range(size)}
    begin, end = len(phrase.before), len(phrase.before) + len(phrase.new)
    first = places.get(begin - 1, -2) + 1 if begin else 0
    last = places.get(end, -1) if phrase.after else len(forms)
    if first < 0 or last <= first:
        return None
    return FoundWords(first, last)


def likeness(said: Sequence[str], heard: Sequence[str]) -> float:
    """Tell how much of some words is heard among others: 1 where all their letters are, in one piece."""
    wanted, found = ("".join(spoken_forms(words)) for words in (said, heard))
    if wanted in found:
        return 1.0
    blocks = difflib.SequenceMatcher(None, wanted, found, autojunk=False).get_matching_blocks()
    return min(0.99, sum(block.size for block in blocks) / len(wanted))
