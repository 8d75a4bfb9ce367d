"""`Client.batch`: any iterator of requests in, an iterator of outcomes out."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

from omnifleet_shared.errors import OmnifleetError

from ..request.request import Request, as_request
from ..results.results import open_result
from .concurrency import InFlightLimit
from .dispatcher import Completion, Dispatcher, WorkItem
from .outcome import Outcome
from .sender import JobSender


class OutcomeStream:
    """Iterates over the outcomes of many jobs, each as soon as it is there, or in order.

    Args:
        sender: sends the jobs.
        jobs: requests, or mappings with the fields of one.
        in_flight: most jobs at a time; by default it follows the fleet's capacity.
        in_order: give outcomes out in the order of the jobs.

    Raises:
        InvalidJob: `in_flight` below 1.
    """

    def __init__(self, sender: JobSender, jobs: Iterable[Any], in_flight: int | None, in_order: bool) -> None:
        self._sender = sender
        self._jobs = jobs
        self._limit = InFlightLimit(sender.transport.capacity, in_flight)
        self._in_order = in_order
        self._pulled: dict[int, Any] = {}
        """Jobs that were pulled and have no outcome yet, by index."""

    def __iter__(self) -> Iterator[Outcome]:
        dispatcher = Dispatcher(self._sender, self._items(), self._limit, in_order=self._in_order)
        with closing(iter(dispatcher)) as completions:
            yield from map(self._outcome, completions)

    def _items(self) -> Iterator[WorkItem]:
        for index, job in enumerate(self._jobs):
            self._pulled[index] = job
            yield WorkItem(index, _request_or_error(job), uuid.uuid4().hex)

    def _outcome(self, completion: Completion) -> Outcome:
        record, settings = completion.state.result, self._sender.settings
        return Outcome(
            index=completion.item.number,
            request=self._pulled.pop(completion.item.number),
            job_id=completion.job_id,
            error=completion.state.error,
            made=None if record is None else open_result(record, self._sender.storage, settings.url_lifetime),
        )


def _request_or_error(job: object) -> Request | OmnifleetError:
    try:
        return as_request(job)
    except OmnifleetError as error:
        return error
