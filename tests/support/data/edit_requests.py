"""Requests for changed words as people write them, each with the edit that is meant: `tests/.../requests/*.tsv`.

A line holds, between tabs: whether it is held back (`h`: the grammar was never changed for it) or not (`.`); what
should come of it; the recording, with `[old→new]` where it is to change; and the request. What should come of it is an
`edit`, or that the request is `ambiguous`, that the words are `unsaid`, or that the `thinker` is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from omnifleet_shared.errors import InvalidJob
from omnifleet_worker.jobs.speech_edit.changes import NewTranscript, certain
from omnifleet_worker.jobs.speech_edit.instruction import read_instruction
from omnifleet_worker.jobs.speech_edit.word_edits import Ambiguous, find_edits, is_transcript_of
from omnifleet_worker.jobs.speech_edit.words import split_words, spoken_forms

Edits = tuple[tuple[int, int, tuple[str, ...]], ...]
"""Of each edit its first word, one past its last, and the spoken forms of the new ones."""
_CHANGE = re.compile(r"\[([^\]→]*)→([^\]]*)\]")


@dataclass(frozen=True)
class EditRequest:
    """A request, what was heard, and what should come of it: edits, or one of the other words of the table."""

    text: str
    heard: tuple[str, ...]
    meant: Edits | str
    held_back: bool


def read_requests(path: Path) -> list[EditRequest]:
    """Read the requests of one language."""
    return [_request(*line.split("\t")) for line in path.read_text().splitlines()]


def outcome(request: EditRequest) -> Edits | str:
    """What comes of a request, as far as no model is asked."""
    clauses = read_instruction(request.text)
    if clauses is None and is_transcript_of(request.text, request.heard):
        clauses = [certain(NewTranscript(request.text))]
    if clauses is None:
        return "thinker"
    try:
        found = find_edits(clauses, request.heard)
    except InvalidJob:
        return "unsaid"
    if isinstance(found, Ambiguous):
        return "ambiguous"
    return tuple((edit.first, edit.last, tuple(spoken_forms(edit.new))) for edit in found)


def _request(held: str, kind: str, recording: str, text: str) -> EditRequest:
    heard, edits = "", []
    for before, old, new in re.findall(rf"(.*?)(?:{_CHANGE.pattern}|$)", recording):
        first = len(split_words(heard + before))
        heard += before + old
        edits += [(first, len(split_words(heard)), tuple(spoken_forms(split_words(new))))] if old + new else []
    meant = tuple(edits) if kind == "edit" else kind
    return EditRequest(text, tuple(split_words(heard)), meant, held == "h")
