"""Kinds of jobs: those that compete for the same places of a worker wait in one queue, beside those of the other kind.

Jobs that make sounds wait in the queue's own lists. Jobs that are answered in words (`understand`) wait in lists of the
same priorities that are named as those of a queue of its own: releases that know no kinds find them there when they
look for lost messages, and for files that nothing needs. A message's own lane, the list of its priority, is what its
lease remembers, as ever. While a worker of an older release lives, which takes from the lanes alone, all messages go
there, and workers of this release put those that wait already there too. What is taken from a lane has a place of those
that make sounds.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..keys import ANSWERS_QUEUE, CELERY_TASKS, WAKE_KEY

JobKind = Literal["sounds", "answers"]
KINDS: tuple[JobKind, ...] = ("sounds", "answers")
_ANSWERS = ANSWERS_QUEUE.format(queue="")


class Place(NamedTuple):
    """What a message takes up of the worker that holds it."""

    kind: JobKind
    batch: bool
    """Whether it is of batch priority."""


PLACES = tuple(Place(kind, batch) for kind in KINDS for batch in (False, True))
"""Of each kind the interactive ones first."""


def kind_queue(queue: str, kind: JobKind) -> str:
    """Name the queue in which jobs of a kind wait, as its lists, its lanes and its wake-up tokens are named."""
    return ANSWERS_QUEUE.format(queue=queue) if kind == "answers" else queue


def kind_of(place: str) -> JobKind:
    """Tell the kind of the jobs that wait in a list."""
    return "answers" if place.startswith(_ANSWERS) else "sounds"


# `beside`: where answers wait in place of a lane. `wake_of`: the wake-up tokens of those that wait in a list.
# `is_answer` finds the task's header in the message as JSON: inside of a text, the quotes would be escaped.
BESIDE = f"""
local function beside(lane) return '{_ANSWERS}' .. lane end
local function lane_of(place) return string.match(place, '^{_ANSWERS}(.*)$') or place end
local function wake_of(place) return '{WAKE_KEY.format(queue="")}' .. string.match(place, '^[^\\6]+') end
"""
IS_ANSWER = f"""
local function is_answer(message)
  return string.find(message, '"task": "{CELERY_TASKS["understand"]}"', 1, true)
    or string.find(message, '"task":"{CELERY_TASKS["understand"]}"', 1, true)
end
"""
