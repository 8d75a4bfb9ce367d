"""What an edit of words would change, told before anything is made: by a dry run, or as readings to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnifleet_shared.errors import EditAmbiguous
from omnifleet_shared.schema.results import EditPlan, PlannedEdit
from omnifleet_shared.schema.transcript import HeardWord

from .word_edits import Ambiguous, WordEdit
from .words import Word, join_words


@dataclass(frozen=True)
class PlannedRecording:
    """What was heard in a recording, and what would change in it."""

    heard: str
    plan: EditPlan


def plan_edits(edits: Sequence[WordEdit], words: Sequence[Word]) -> EditPlan:
    """Return the edits with the times of their words.

    Args:
        edits: in order.
        words: of the recording.
    """
    heard = tuple(HeardWord(text=word.text, start=word.start, end=word.end) for word in words)
    return EditPlan(words=heard, edits=tuple(_planned(edit, words) for edit in edits))


def ambiguous(found: Ambiguous, words: Sequence[Word]) -> EditAmbiguous:
    """Return the error that names the readings of a request, with their times, and says how to choose."""
    readings = [[_planned(edit, words) for edit in reading] for reading in found.readings]
    told = "; or ".join(" and ".join(_in_words(edit, words) for edit in reading) for reading in readings)
    remedy = (
        "Say which one, such as the first, the second, the last or all"
        if found.counted
        else "Put the words that are meant in quotes"
    )
    details = {
        "heard": join_words([word.text for word in words]),
        "readings": [[edit.model_dump(mode="json") for edit in reading] for reading in readings],
    }
    return EditAmbiguous(f"it may mean: {told}", "desc", remedy, details)


def _planned(edit: WordEdit, words: Sequence[Word]) -> PlannedEdit:
    gone = words[edit.first : edit.last]
    # What is inserted comes when the word before it has been said; at the beginning, before the first word.
    here = words[edit.first - 1].end if edit.first else words[0].start
    start, end = (gone[0].start, gone[-1].end) if gone else (here, here)
    old = join_words([word.text for word in gone])
    return PlannedEdit(first=edit.first, last=edit.last, start=start, end=end, old=old, new=join_words(edit.new))


def _in_words(edit: PlannedEdit, words: Sequence[Word]) -> str:
    times = f"at {edit.start:.2f}-{edit.end:.2f} s"
    if not edit.old:
        beside = f"after {words[edit.first - 1].text!r}" if edit.first else f"before {words[0].text!r}"
        return f"insert {edit.new!r} {beside} at {edit.start:.2f} s"
    return f"replace {edit.old!r} {times} with {edit.new!r}" if edit.new else f"delete {edit.old!r} {times}"
