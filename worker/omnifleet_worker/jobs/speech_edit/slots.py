"""Reads what stands in a sentence's slots: the words that are meant, which of them, and the words to say."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from .changes import EVERY, Place, Position, Spoken
from .languages.language import Language
from .quotes import MARK, MaskedText

Places = tuple[Place, ...]
_LONGEST_LIST = 20
_MOST_COURTESIES = 4


class SlotReader:
    """Reads slots in one language.

    Args:
        language: its table.
    """

    def __init__(self, language: Language) -> None:
        self._counts = {_compiled(name): which for name, which in language.counts.items()}
        self._numbers = language.numbers
        # The longest first: "second to last" begins with "second".
        counts = "|".join(sorted(language.counts, key=len, reverse=True))
        self._count = _compiled(rf"(?:{language.determiners or '(?!)'})?(?P<count>{counts})\s?")
        self._kind = _compiled(language.kinds)
        self._kind_after = _compiled(rf"\s?(?:{language.kinds_after})$")
        self._count_after = {_compiled(rf"\s?{name}$"): which for name, which in language.counts_after.items()}
        self._nothing, self._sound = _compiled(language.nothing), _compiled(language.sounds)
        self._article = _compiled(language.articles)
        beside = rf"{language.courtesies}|(?P<all>{language.everywhere})"
        self._before, self._after = _compiled(rf"(?:{beside}),?\s*"), _compiled(rf",?\s*(?:{beside})$")
        self._listing = _compiled(rf"(?:{language.listing})")
        size = rf"{'|'.join(language.numbers)}|\d"
        numbers = {"COUNT": rf"(?P<count>{counts})", "SIZE": rf"(?P<size>{size})"}
        self._positions = [_compiled(_filled(one, numbers)) for one in language.positions]
        self._ends = {_compiled(_filled(one, numbers)): which for one, which in language.ends.items()}
        self._unnameable = _compiled(_filled(language.unnameable, {"COUNT": f"(?:{counts})", "SIZE": f"(?:{size})"}))
        self._anywhere = re.compile(_whole_words(counts), re.IGNORECASE)

    def places(self, slot: str, request: MaskedText) -> list[tuple[Places, ...]]:
        """Read the words that are said, or where: ranks of readings, the likeliest first; none where it is neither."""
        trimmed, everywhere = self._trim(slot)
        if any(self._unnameable.fullmatch(one) for one in (slot, trimmed)):
            return []
        which = EVERY if everywhere else None
        without_article = self._article.sub("", trimmed, count=1) if self._article.match(trimmed) else trimmed
        ranks = [self._one(slot, None, request), self._one(trimmed, which, request)]
        ranks += [self._one(without_article, which, request)]
        found = [tuple((place,) for place in rank) for rank in ranks if rank]
        return found + [(places,) for places in self._lists(trimmed, which, request)]

    def text(self, slot: str, request: MaskedText) -> tuple[str | None, bool]:
        """Read the words to say, and whether they are to be said at every place.

        Returns:
            The words: empty where nothing is to be said, None where the slot holds something else than words.
        """
        trimmed, everywhere = self._trim(slot)
        if self._nothing.fullmatch(trimmed) or self._sound.fullmatch(trimmed):
            return ("" if self._nothing.fullmatch(trimmed) else None), everywhere
        named = self._without_kind(trimmed)
        if re.fullmatch(MARK, named):
            return request.restore(named), everywhere
        # "the word really" is one word to say; "words of wisdom" are three.
        kind = self._kind.match(trimmed)
        text = named if kind and " " in kind.group().strip() else trimmed
        return (None if re.search(MARK, text) else text), everywhere

    def told_counts(self, request: MaskedText) -> set[int]:
        """Find every `which` that is told anywhere in a request."""
        return {which for found in self._anywhere.findall(request.plain) if (which := self._which(found)) is not None}

    def _one(self, text: str, which: int | None, request: MaskedText) -> list[Place]:
        """What one phrase may mean: the words as they stand, words with a count or a kind, words by their place."""
        as_it_stands: list[Place] = [] if re.search(MARK, text) or not text else [Spoken(text, which)]
        if place := self._position(text):
            return [Spoken(self._article.sub("", text, count=1), which), place]
        rest, told = self._without_count(text)
        which = which if told is None else told
        named = self._without_kind(rest)
        if re.fullmatch(MARK, named):
            return [Spoken(request.restore(named), which)]
        is_other = named and named != text and not re.search(MARK, named)
        return [*as_it_stands, Spoken(named, which)] if is_other else as_it_stands

    def _lists(self, text: str, which: int | None, request: MaskedText) -> Iterator[Places]:
        """Several phrases, of which a count holds for those after it; then the same, each count for its own alone."""
        parts = self._listing.split(text)
        if not 1 < len(parts) <= _LONGEST_LIST:
            return
        choices = [self._one(part.strip(), which, request) for part in parts]
        if all(choices):
            places = tuple(choice[-1] for choice in choices)
            yield carry_count(places)
            yield places

    def _without_count(self, text: str) -> tuple[str, int | None]:
        if before := self._count.match(text):
            return text[before.end() :], self._which(before["count"])
        for pattern, which in self._count_after.items():
            if after := pattern.search(text):
                return text[: after.start()], which
        return text, None

    def _position(self, text: str) -> Place | None:
        for pattern in self._positions:
            if found := pattern.fullmatch(text):
                which = self._which(found["count"])
                return Position(which, self._size(found)) if which else None
        for pattern, end in self._ends.items():
            if found := pattern.fullmatch(text):
                return Position(end, self._size(found))
        return None

    def _size(self, found: re.Match[str]) -> int:
        size = found.groupdict().get("size")
        return 1 if size is None else int(size) if size.isdigit() else self._numbers[size.lower()]

    def _which(self, count: str) -> int | None:
        if number := re.search(r"\d+", count):
            return int(number.group()) or None
        return next((which for name, which in self._counts.items() if name.fullmatch(count)), None)

    def _without_kind(self, text: str) -> str:
        before = self._kind.match(text)
        rest = text[before.end() :] if before else text
        return self._kind_after.sub("", rest) or rest

    def _trim(self, slot: str) -> tuple[str, bool]:
        """The slot without courtesies at its ends, unless it is one; and whether it says that all places are meant."""
        text, everywhere = slot, False
        for _ in range(_MOST_COURTESIES):
            found = self._before.match(text) or self._after.search(text)
            rest = (text[: found.start()] + text[found.end() :]).strip() if found else ""
            if not found or not rest:
                break
            text, everywhere = rest, everywhere or found["all"] is not None
        return text, everywhere


def carry_count(places: Places, which: int | None = None) -> Places:
    """Let a count hold for the places after it that have none; `which` is that of the clause before."""
    carried: list[Place] = []
    for place in places:
        if isinstance(place, Spoken):
            place = replace(place, which=which) if place.which is None else place
            which = place.which
        carried.append(place)
    return tuple(carried)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(_filled(pattern, {}), re.IGNORECASE)


def _filled(pattern: str, slots: Mapping[str, str]) -> str:
    for name, expression in {**slots, "MARK": MARK}.items():
        pattern = pattern.replace(name, expression)
    return pattern


def _whole_words(pattern: str) -> str:
    # Where words are not written apart, `\b` would find no word's end.
    return rf"(?<![^\W\d_])(?:{pattern})(?![^\W\d_])" if re.search("[a-z]{3}", pattern) else pattern
