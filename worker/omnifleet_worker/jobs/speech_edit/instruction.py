"""Reads what a speech edit is asked to do, in five languages: clauses, each with all that it may mean.

What a grammar cannot read whole goes to the thinker. The grammar comes first because it costs no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from .changes import (
    EVERY,
    Change,
    Clause,
    Delete,
    Insert,
    NewTranscript,
    Place,
    Position,
    Rank,
    Replace,
    Spoken,
    certain,
)
from .languages import LANGUAGES
from .languages.language import Language
from .quotes import MARK, MaskedText
from .slots import SlotReader, carry_count
from .words import DENSE, split_words

_MOST_SPLITS = 40
"""Most places where a slot of a sentence may end, and most ways to fill all of its slots: what a long text takes."""
_MOST_JOINED = 3
"""Most pieces, divided by commas and the like, that make one clause."""


def read_instruction(text: str) -> list[Clause] | None:
    """Read what a request asks for; None where the grammar cannot read all of it.

    Takes `replace 'a' with 'b'`, `delete the last 'a'`, `insert 'a' before 'b'` and the like, several of them joined,
    `say 'a b c'` or a quoted text alone for a whole transcript. Quotes of any kind; none where it is plain.
    """
    request = MaskedText(text)
    plain = _without_chatter(_without_needless_spaces(request.plain))
    transcript = next((found for reader in _READERS if (found := reader.transcript(plain, request))), None)
    return [certain(NewTranscript(transcript))] if transcript else _read_clauses(plain, request)


def asks_for_change(text: str) -> bool:
    """Whether a text holds quotations or a verb of asking in one of the languages, and so is no transcript itself."""
    return MaskedText(text).has_quotes or _ASKING.search(text) is not None


def told_count(text: str) -> int | None:
    """Return the only `which` that a request tells anywhere; None where it tells none, or several."""
    told = set[int]().union(*(reader.slots.told_counts(MaskedText(text)) for reader in _READERS))
    return told.pop() if len(told) == 1 else None


def _read_clauses(plain: str, request: MaskedText) -> list[Clause] | None:
    starts = [0, *(found.end() for found in _SEPARATOR.finditer(plain))]
    ends = [*(found.start() for found in _SEPARATOR.finditer(plain)), len(plain)]
    clauses: list[Clause] = []
    first = 0
    while first < len(starts):
        for last in range(first, min(first + _MOST_JOINED, len(ends))):
            clause = _read_clause(plain[starts[first] : ends[last]].strip(_ENDS), request, clauses)
            if clause:
                break
        else:
            return None
        clauses.append(clause)
        first = last + 1
    return clauses


def _read_clause(text: str, request: MaskedText, before: Sequence[Clause]) -> Clause:
    earlier = before[-1][0][0][-1] if before else None
    if isinstance(earlier, Replace | Delete) and re.match(MARK, text):
        # A verb holds for the quotations after it, and so does a count: "delete all 'a' and 'b'".
        which = earlier.old.which if isinstance(earlier.old, Spoken) else None
        for reader in _READERS:
            if clause := reader.carried(text, request, earlier):
                return _with_count(clause, which)
    ranks = dict.fromkeys(rank for reader in _READERS for rank in reader.clause(text, request))
    return tuple(ranks)


def _with_count(clause: Clause, which: int | None) -> Clause:
    if which is None:
        return clause
    counted = tuple(tuple(tuple(_counted(change, which) for change in reading) for reading in rank) for rank in clause)
    return counted + clause


def _counted(change: Change, which: int) -> Change:
    if isinstance(change, Replace | Delete):
        return replace(change, old=carry_count((change.old,), which)[0])
    return change


@dataclass(frozen=True)
class _Sentence:
    """A sentence of a language's table: literal expressions around its slots."""

    kind: str
    literals: tuple[re.Pattern[str], ...]
    slots: tuple[str, ...]

    @classmethod
    def compiled(cls, kind: str, pattern: str) -> _Sentence:
        parts = re.split("(OLD|NEW)", pattern.replace("MARK", MARK))
        texts = [*parts[:-1:2], rf"(?:{parts[-1]})\Z"]
        return cls(kind, tuple(re.compile(text, re.IGNORECASE) for text in texts), tuple(parts[1::2]))

    def splits(self, text: str) -> list[dict[str, str]]:
        """All ways in which a text is this sentence: what stands in its slots; the longest OLD first."""
        opening = self.literals[0].match(text)
        found = list(islice(self._fill(text, opening, 0), _MOST_SPLITS)) if opening else []
        return sorted(found, key=lambda slots: -len(slots.get("OLD", "")))

    def _fill(self, text: str, literal: re.Match[str], slot: int) -> Iterator[dict[str, str]]:
        everywhere = {"ALL": "all"} if literal.groupdict().get("all") else {}
        if slot == len(self.slots):
            yield everywhere
            return
        for found in islice(self.literals[slot + 1].finditer(text, literal.end() + 1), _MOST_SPLITS):
            inside = text[literal.end() : found.start()].strip(f" {_COMMAS}")
            if inside:
                filled = {self.slots[slot]: inside, **everywhere}
                yield from (filled | rest for rest in self._fill(text, found, slot + 1))


class _Reader:
    """Reads clauses in one language."""

    def __init__(self, language: Language) -> None:
        kinds = ("replace", "delete", "before", "after", "first", "last")
        self.slots = SlotReader(language)
        self._sentences = [_Sentence.compiled(kind, one) for kind in kinds for one in getattr(language, kind)]
        self._say = [_Sentence.compiled("say", one) for one in language.say]
        self._openings = re.compile(rf"(?:(?:{language.openings})[\s{_COMMAS}]*)+", re.IGNORECASE)
        self._transcript = re.compile(rf"(?:{language.transcript})(?P<text>.+)", re.IGNORECASE | re.DOTALL)
        self._pairs = re.compile(language.listing, re.IGNORECASE)
        self._carried = language.carried

    def transcript(self, plain: str, request: MaskedText) -> str | None:
        """Read the whole new transcript that a request gives in so many words."""
        for text in self._without_opening(plain):
            if found := self._transcript.fullmatch(text):
                return request.restore(found["text"].strip())
            said = [slots["NEW"] for one in self._say for slots in one.splits(text)]
            quoted = next((new for new in [text, *said] if re.fullmatch(MARK, new)), None)
            if quoted:
                return request.restore(quoted)
        return None

    def clause(self, text: str, request: MaskedText) -> Clause:
        """Read one clause; empty where it is none of this language."""
        ranked: list[tuple[int, Rank]] = []
        for candidate in self._without_opening(text):
            ranked += [(-1, rank) for rank in self._several(candidate, request)]
            for sentence in self._sentences:
                for slots in sentence.splits(candidate):
                    ranked += enumerate(self._meanings(sentence.kind, slots, request))
        return tuple(rank for _, rank in sorted(ranked, key=lambda pair: pair[0]))

    def carried(self, text: str, request: MaskedText, earlier: Change) -> Clause:
        """Read a clause that takes its verb from an earlier replacement or deletion."""
        verb = self._carried[isinstance(earlier, Delete)]
        space = "" if re.search(f"[{DENSE}]", verb) else " "
        found = self.clause(f"{verb}{space}{text}", request) if verb else ()
        return tuple(rank for rank in found if isinstance(rank[0][-1], type(earlier)))

    def _without_opening(self, text: str) -> list[str]:
        rest = text[found.end() :] if (found := self._openings.match(text)) else text
        return [rest, text] if rest and rest != text else [text]

    def _meanings(self, kind: str, slots: dict[str, str], request: MaskedText) -> Iterator[Rank]:
        new, everywhere = self.slots.text(slots["NEW"], request) if "NEW" in slots else ("", False)
        if new is None or (kind != "replace" and "NEW" in slots and not split_words(new)):
            return
        if kind in ("first", "last"):
            yield ((_insert(kind, new, Position(1 if kind == "first" else -1)),),)
            return
        for rank in self.slots.places(slots["OLD"], request):
            counted = [carry_count(places, EVERY) if everywhere or "ALL" in slots else places for places in rank]
            yield tuple(tuple(_change(kind, place, new) for place in places) for places in counted)

    def _several(self, text: str, request: MaskedText) -> Iterator[Rank]:
        """Replacements that share their verb and are not quoted: "replace one with two and three with four"."""
        parts = self._pairs.split(text)
        if not 1 < len(parts) <= _MOST_JOINED or re.search(MARK, text) or not self._carried[0]:
            return
        clauses = [f"{self._carried[0] + ' ' if number else ''}{part}" for number, part in enumerate(parts)]
        sentences = [one for one in self._sentences if one.kind == "replace"]
        divided = [next((slots for one in sentences for slots in one.splits(clause)), None) for clause in clauses]
        meant = [next(self._meanings("replace", slots, request), None) if slots else None for slots in divided]
        if all(meant):
            yield (tuple(change for rank in meant if rank for change in rank[-1]),)


def _change(kind: str, place: Place, new: str) -> Change:
    if kind == "replace" and new:
        return Replace(place, new)
    return Delete(place) if kind in ("replace", "delete") else _insert(kind, new, place)


def _insert(kind: str, new: str, anchor: Place) -> Insert:
    return Insert(new, "before" if kind in ("before", "first") else "after", anchor)


_COMMAS = ",，、:：;；"
_STOPS = ".!?。！？,，、;；"
_ENDS = f" .!?。！？…{_COMMAS}"
_READERS = [_Reader(language) for language in LANGUAGES]
_ASKING = re.compile("|".join(language.asking for language in LANGUAGES), re.IGNORECASE)
_START = "|".join(f"{language.asking}|{language.starting}" for language in LANGUAGES) + f"|{MARK}"
_STARTING = re.compile(_START, re.IGNORECASE)
_OPENINGS = "|".join(language.openings for language in LANGUAGES)
_NEXT = rf"(?=(?:(?:{_OPENINGS})\s?)*+(?:{_START}))"
_JOINTS = r"[;,.](?=\s)|(?<!\w)(?:and|then|also|et|puis|ensuite|und|dann|danach)(?=[\s,])"
_DENSE_JOINTS = rf"[，；。、](?!而|说|改说|要说|应该说)[，；。、\s]*|(?<=[{DENSE}])[,;]"
_SEPARATOR = re.compile(rf"(?:(?:{_JOINTS})\s*)++{_NEXT}|{_DENSE_JOINTS}", re.IGNORECASE)
_PREAMBLES = "|".join(language.preambles for language in LANGUAGES)
_PREAMBLE = re.compile(rf"(?:{_PREAMBLES})[^{_STOPS}]*+[{_STOPS}]\s*", re.IGNORECASE)
_CLOSING = re.compile(
    rf"[{_STOPS}]\s*(?:{'|'.join(language.courtesies for language in LANGUAGES)})[{_ENDS}]*\Z", re.IGNORECASE
)
_MOST_CHATTER = 4


def _without_chatter(plain: str) -> str:
    """The request without the parts before and after it that ask for nothing."""
    text = plain.strip(_ENDS)
    for _ in range(_MOST_CHATTER):
        before = _PREAMBLE.match(text)
        if before and not _STARTING.search(before.group()):
            text = text[before.end() :] or text
        text = (_CLOSING.sub("", text) or text).strip(_ENDS)
    return text


def _without_needless_spaces(plain: str) -> str:
    return re.sub(rf"(?<=[{DENSE}，。、；：]) | (?=[{DENSE}，。、；：])", "", plain)
