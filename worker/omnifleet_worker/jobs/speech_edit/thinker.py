"""Requests that the grammar cannot read: the question to the thinker, and its JSON lines as changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

import json_repair
from omnifleet_shared.errors import InvalidJob
from pydantic import BaseModel, ConfigDict, ValidationError

from .changes import EVERY, Change, Clause, Delete, Insert, NewTranscript, Replace, Spoken, certain
from .instruction import told_count

EXAMPLES = "replace 'hello' with 'goodbye'; delete the second 'very'; insert 'not' after 'is'; or the new transcript"
QUESTION_SYSTEM = "You turn requests to change the words of a recording into JSON. You write nothing but JSON lines."
_WHICH = {"first": 1, "second": 2, "third": 3, "last": -1, "all": EVERY, "every": EVERY}


def question(request: str, heard: str) -> str:
    """Return the question to the thinker about a request that the grammar cannot read."""
    return (
        f"The recording says: {heard}\nThe request is: {request}\n"
        "Write one JSON object a line for each change, of these forms:\n"
        '{"do": "replace", "old": "words that are said", "new": "words to say instead"}\n'
        '{"do": "delete", "old": "words that are said"}\n'
        '{"do": "insert", "new": "words to say", "after": "words that are said"}\n'
        '{"do": "say", "new": "the whole new transcript"}\n'
        'Where those words are said more than once, add which is meant: "which": 1, 2, "last" or "all".'
    )


def read_answer(answer: str, request: str) -> list[Clause]:
    """Read the changes in the thinker's answer; anything else in it is ignored.

    Args:
        answer: what the thinker wrote.
        request: what it was asked about. A count there ("all") holds where the answer names none.

    Raises:
        InvalidJob: there is no change in it.
    """
    told = told_count(request)
    clauses = [clause for record in _records(answer) if (clause := _clause(record, told))]
    transcripts = [clause for clause in clauses if isinstance(clause[0][0][0], NewTranscript)]
    if not clauses:
        raise InvalidJob("it cannot be read as changes of words", "desc", f"Write for example: {EXAMPLES}")
    return transcripts[:1] or clauses


class _ChangeRecord(BaseModel):
    """One change as the thinker writes it; blank fields count as absent."""

    model_config = ConfigDict(str_strip_whitespace=True)

    do: Literal["replace", "delete", "insert", "say"]
    old: str | None = None
    new: str | None = None
    before: str | None = None
    after: str | None = None
    which: int | str | None = None

    def place(self, words: str, which: int | None) -> Spoken:
        told = self.which if isinstance(self.which, int) else _WHICH.get((self.which or "").lower())
        return Spoken(words, which if told is None else told)


def _records(text: str) -> Iterator[_ChangeRecord]:
    # Object by object: of two alike in one text json_repair keeps the second alone. None of the forms is nested.
    for part in text.split("{")[1:]:
        found = json_repair.loads("{" + part)
        fields = found[0] if isinstance(found, list) and found else found
        if isinstance(fields, dict):
            with suppress(ValidationError):
                yield _ChangeRecord.model_validate({str(key).lower(): value for key, value in fields.items()})


def _clause(record: _ChangeRecord, told: int | None) -> Clause:
    """What a record means: with the request's own count where that can be, else without."""
    changes = [change for which in dict.fromkeys((told, None)) if (change := _change(record, which)) is not None]
    return tuple(rank for change in dict.fromkeys(changes) for rank in certain(change))


def _change(record: _ChangeRecord, which: int | None) -> Change | None:
    match {name: value for name, value in record.model_dump(exclude={"which"}).items() if value}:
        case {"do": "replace", "old": old, "new": new}:
            return Replace(record.place(old, which), new)
        case {"do": "delete", "old": old}:
            return Delete(record.place(old, which))
        case {"do": "insert", "new": new, "after": anchor}:
            return Insert(new, "after", record.place(anchor, which))
        case {"do": "insert", "new": new, "before": anchor}:
            return Insert(new, "before", record.place(anchor, which))
        case {"do": "say", "new": text}:
            return NewTranscript(text)
        case _:
            return None
