"""A job as server-sent events: its progress, its parts and its outcome, on any replica."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

from fastapi.sse import ServerSentEvent

from ..backend import Backend
from .job_feed import Look
from .views import job_view, part_view, progress_view

OUTCOME = "outcome"
"""Event id of the end."""
RETRY = 1000
"""Milliseconds after which a reader whose stream broke off comes back."""
EVENT_ID = re.compile(r"(?:([0-9]{1,9})\.)?((?:[a-z]+-[0-9]{1,18}-[0-9]{1,18})?)")


@dataclass(frozen=True)
class Place:
    """How far a reader of a job's events has come. As text it is the id of the last event that he had.

    Attributes:
        parts: number of the last part.
        progress: the last progress: status, step and steps.
    """

    parts: int = 0
    progress: str = ""

    @classmethod
    def read(cls, event_id: str | None) -> Self:
        """Read the id of an event; the beginning for anything else."""
        found = EVENT_ID.fullmatch(event_id or "")
        return cls() if found is None else cls(int(found[1] or 0), found[2])

    def __str__(self) -> str:
        return f"{self.parts}.{self.progress}"


async def follow(backend: Backend, job_id: str, last_event_id: str | None) -> AsyncGenerator[ServerSentEvent]:
    """Give a job's events, behind the one of that id: no part twice, and none left out.

    `progress` comes at each change of it, `part` for each part of a streamed job, and `outcome` at last.
    """
    place = Place.read(last_event_id)
    async with aclosing(backend.feed.changes(job_id)) as looks:
        async for look in looks:
            if not look.state.status.is_final and _progress(look) != place.progress:
                place = Place(place.parts, _progress(look))
                data = {"status": look.state.status.value, **progress_view(look.progress)}
                yield ServerSentEvent(event="progress", id=str(place), retry=RETRY, data=data)
            for part in look.parts[place.parts :]:
                place = Place(part.number, place.progress)
                yield ServerSentEvent(event="part", id=str(place), data=await part_view(backend, job_id, part))
            if look.state.status.is_final:
                yield ServerSentEvent(event="outcome", id=OUTCOME, data=await job_view(backend, job_id, look))


def _progress(look: Look) -> str:
    return f"{look.state.status.value}-{look.progress.step}-{look.progress.steps}"
