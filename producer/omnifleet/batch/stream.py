"""`Client.batch`: any iterator of requests in, an iterator of outcomes out."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from omnifleet_shared.errors import OmnifleetError

from ..request.request import Request, as_request
from ..results.results import open_result
from .concurrency import Window
from .dispatcher import Flight, Item, Landing
from .outcome import Outcome
from .sender import JobSender


class Stream:
    """The outcomes of many jobs, each as soon as it is there, or in order.

    Args:
        fleet: that carries the jobs out.
        jobs: requests, or mappings with the fields of one.
        in_flight: most jobs at a time; by default it follows the fleet's capacity.
        in_order: tell them in the order of the jobs.

    Raises:
        InvalidJob: `in_flight` below 1.
    """

    def __init__(self, fleet: JobSender, jobs: Iterable[Any], in_flight: int | None, in_order: bool) -> None:
        self._fleet = fleet
        self._jobs = jobs
        self._window = Window(fleet.transport.capacity, in_flight)
        self._in_order = in_order
        self._given: dict[int, Any] = {}
        """What was pulled and not told yet."""

    def __iter__(self) -> Iterator[Outcome]:
        flight = Flight(self._fleet, self._items(), self._window, in_order=self._in_order)
        with closing(iter(flight)) as landings:
            yield from map(self._outcome, landings)

    def _items(self) -> Iterator[Item]:
        for index, given in enumerate(self._jobs):
            self._given[index] = given
            yield Item(index, _request(given), uuid.uuid4().hex)

    def _outcome(self, landing: Landing) -> Outcome:
        record, settings = landing.state.result, self._fleet.settings
        return Outcome(
            index=landing.item.number,
            request=self._given.pop(landing.item.number),
            job_id=landing.job_id,
            error=landing.state.error,
            made=None if record is None else open_result(record, self._fleet.storage, settings.url_lifetime),
        )


def _request(given: object) -> Request | OmnifleetError:
    try:
        return as_request(given)
    except OmnifleetError as error:
        return error
