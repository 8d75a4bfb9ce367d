"""Read what a speech edit is asked to do: a small grammar for plain requests, the thinker's JSON lines for the others.

The grammar comes first because it costs no tokens: it reads a request in 0.03 ms, and all 23 plain requests of its
tests as they are meant. Of twelve awkward requests collected against it (full-width quotes, "the last word", other
languages) it reads none rightly; whether the thinker reads more of them can only be measured with the real weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import json_repair
from omnifleet_shared.errors import InvalidJob
from pydantic import BaseModel, ConfigDict, ValidationError

EXAMPLES = "replace 'hello' with 'goodbye'; delete the second 'very'; insert 'not' after 'is'; or the new transcript"
EVERY = 0
"""`occurrence` that stands for all places where the words are said."""


@dataclass(frozen=True)
class Replace:
    """Say `new` where `old` is said: the first time unless `occurrence` says which (-1 is the last, 0 all)."""

    old: str
    new: str
    occurrence: int = 1


@dataclass(frozen=True)
class Delete:
    """Cut `old` out."""

    old: str
    occurrence: int = 1


@dataclass(frozen=True)
class Insert:
    """Say `new` before or after `anchor`."""

    new: str
    where: Literal["before", "after"]
    anchor: str
    occurrence: int = 1


@dataclass(frozen=True)
class NewTranscript:
    """Say this instead; words that stay are left as they are."""

    text: str


Change = Replace | Delete | Insert | NewTranscript

_QUOTE = re.compile(
    r"""(?<!\w)'(?=\S)([^']*(?:'(?=\w)[^']*)*)'(?!\w)|"([^"]+)"|“([^”]+)”|‘((?:[^’]|’(?=\w))+)’|„([^“”]+)[“”]"""
    r"""|«([^»]+)»|»([^«]+)«|「([^」]+)」|『([^』]+)』|`([^`]+)`"""
)
# Each quoted text is masked by one private-use character, so that nothing in it is read as grammar.
_FIRST_MARK, _LAST_MARK = 0xE000, 0xF8FF
_MARKS = "\ue000-\uf8ff"

_COUNTS = {
    name: position
    for position, names in {
        **dict(enumerate(("first 1st", "second 2nd", "third 3rd", "fourth 4th", "fifth 5th", "sixth 6th"), 1)),
        -1: "last final",
        EVERY: "every all each",
    }.items()
    for name in names.split()
}
_REPLACE, _DELETE = "replace|change|swap|turn|exchange", "delete|remove|cut|drop|erase|omit"
_INSERT = "insert|add|put"
_VERB = rf"(?:please )?(?:{_REPLACE}|{_DELETE}|{_INSERT}|say)"
_COUNT = rf"(?:(?:the )?(?P<count>{'|'.join(_COUNTS)}) )?"
_KIND = rf"(?:(?:the )?(?:words?|phrases?|occurrences? of|mentions? of) |the (?=[{_MARKS}]))?"


def _term(name: str) -> str:
    # Bare words begin with something other than a quotation, so that what is quoted is a term of its own.
    return rf"(?P<{name}>[{_MARKS}]|[^\s{_MARKS}][^{_MARKS}]*?)"


_OLD = rf"{_COUNT}{_KIND}{_term('old')}"
_NEW = rf"{_KIND}{_term('new')}"
_JOINT = r"(?:\s?(?:[;,.]|\b(?:and|then|also)\b))++\s?"
_SEPARATOR = re.compile(rf"{_JOINT}(?={_VERB}\b|[{_MARKS}])", re.IGNORECASE)
_LEADING = re.compile(r"^(?:and |then |also |please )+", re.IGNORECASE)
_RULES: tuple[tuple[type[Change], re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (Replace, rf"(?:{_REPLACE}) {_OLD} (?:with|to|by|for|into) {_NEW}"),
        (Replace, rf"(?P<old>[{_MARKS}]) ?(?:->|→|=>) ?(?P<new>[{_MARKS}])"),
        (Delete, rf"(?:{_DELETE})(?: out)? {_OLD}"),
        (Insert, rf"(?:{_INSERT}) {_NEW} (?:right |directly )?(?P<where>before|after) {_OLD}"),
        (NewTranscript, rf"(?:(?:the )?(?:new )?transcript ?:|say ?:|say (?=[{_MARKS}])) ?{_term('text')}"),
        (NewTranscript, rf"(?P<text>[{_MARKS}])"),
    )
)


def read_instruction(text: str) -> list[Change] | None:
    """Parse the changes that a request asks for; None where the grammar cannot read all of it.

    Takes `replace 'a' with 'b'`, `delete the last 'a'`, `insert 'a' before 'b'`, several of them joined by `and`, `;`
    or `,`, and `say 'a b c'` or a quoted text alone for a whole transcript. Quotes of any kind; none where it is plain.
    """
    plain, quotes = _mask_quotes(text)
    changes: list[Change] = []
    for clause in _SEPARATOR.split(plain.strip(" .;,!")):
        change = _read_clause(_LEADING.sub("", clause.strip(" .;,!")), changes, quotes)
        if change is None:
            return None
        changes.append(change)
    several_transcripts = len(changes) > 1 and any(isinstance(change, NewTranscript) for change in changes)
    return None if several_transcripts else changes


def _mask_quotes(text: str) -> tuple[str, list[str]]:
    quotes: list[str] = []

    def mask(found: re.Match[str]) -> str:
        inside = next(part for part in found.groups() if part is not None).strip()
        if not inside or len(quotes) > _LAST_MARK - _FIRST_MARK:
            return found.group()
        quotes.append(inside)
        return chr(_FIRST_MARK + len(quotes) - 1)

    unmarked = re.sub(rf"[{_MARKS}]", "", text)
    return " ".join(_QUOTE.sub(mask, unmarked).split()), quotes


def _read_clause(clause: str, before: list[Change], quotes: list[str]) -> Change | None:
    # A verb holds for the quotations after it: "delete 'a' and 'b'".
    verbs: dict[type[Change], str] = {Replace: "replace ", Delete: "delete "}
    verb = verbs.get(type(before[-1]), "") if before else ""
    held = re.match(rf"[{_MARKS}]", clause)
    for attempt in (verb + clause, clause) if held else (clause,):
        for kind, rule in _RULES:
            if found := rule.fullmatch(attempt):
                return _change(kind, found.groupdict(), quotes)
    return None


def _change(kind: type[Change], parts: dict[str, str | None], quotes: list[str]) -> Change:
    phrases = {name: _unquoted(part, quotes) for name, part in parts.items() if part and name not in ("count", "where")}
    occurrence = _COUNTS[(parts.get("count") or "first").lower()]
    if kind is Replace:
        return Replace(phrases["old"], phrases["new"], occurrence)
    if kind is Delete:
        return Delete(phrases["old"], occurrence)
    if kind is NewTranscript:
        return NewTranscript(phrases["text"])
    where: Literal["before", "after"] = "before" if (parts["where"] or "").lower() == "before" else "after"
    return Insert(phrases["new"], where, phrases["old"], occurrence)


def _unquoted(part: str, quotes: list[str]) -> str:
    mark = ord(part[0]) - _FIRST_MARK
    return quotes[mark] if 0 <= mark < len(quotes) else part


QUESTION_SYSTEM = "You turn requests to change the words of a recording into JSON. You write nothing but JSON lines."


def question(request: str, heard: str) -> str:
    """Return the question to the thinker about a request that the grammar cannot read."""
    return (
        f"The recording says: {heard}\nThe request is: {request}\n"
        "Write one JSON object a line for each change, of these forms:\n"
        '{"do": "replace", "old": "words that are said", "new": "words to say instead"}\n'
        '{"do": "delete", "old": "words that are said"}\n'
        '{"do": "insert", "new": "words to say", "after": "words that are said"}\n'
        '{"do": "say", "new": "the whole new transcript"}'
    )


def read_answer(answer: str) -> list[Change]:
    """Parse the changes from the thinker's answer; anything else in it is ignored.

    Raises:
        InvalidJob: there is none in it.
    """
    changes = [change for record in _records(answer) if (change := _from_record(record)) is not None]
    transcripts = [change for change in changes if isinstance(change, NewTranscript)]
    if not changes:
        raise InvalidJob("it cannot be read as changes of words", "desc", f"Write for example: {EXAMPLES}")
    return [transcripts[0]] if transcripts else changes


class _ChangeRecord(BaseModel):
    """One change as the thinker writes it; blank fields count as absent."""

    model_config = ConfigDict(str_strip_whitespace=True)

    do: Literal["replace", "delete", "insert", "say"]
    old: str | None = None
    new: str | None = None
    before: str | None = None
    after: str | None = None


def _records(text: str) -> Iterator[_ChangeRecord]:
    # Object by object: of two alike in one text json_repair keeps the second alone. None of the forms is nested.
    for part in text.split("{")[1:]:
        found = json_repair.loads("{" + part)
        fields = found[0] if isinstance(found, list) and found else found
        if isinstance(fields, dict):
            with suppress(ValidationError):
                yield _ChangeRecord.model_validate({str(key).lower(): value for key, value in fields.items()})


def _from_record(record: _ChangeRecord) -> Change | None:
    match {name: value for name, value in record.model_dump().items() if value}:
        case {"do": "replace", "old": old, "new": new}:
            return Replace(old, new)
        case {"do": "delete", "old": old}:
            return Delete(old)
        case {"do": "insert", "new": new, "after": anchor}:
            return Insert(new, "after", anchor)
        case {"do": "insert", "new": new, "before": anchor}:
            return Insert(new, "before", anchor)
        case {"do": "say", "new": text}:
            return NewTranscript(text)
        case _:
            return None
