"""A job's requests on their way through the engine, few at a time: no more is ahead of storage than one window's work.

What a worker has in hand when it is killed is made again. So a window of a long job takes its first step once the one
before is in storage, and is conditioned meanwhile; and of the answers that are written together each may come so many
tokens ahead of what is kept of it that all of them together are no more than the longest answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from itertools import islice

from ...engine.request import Kind, Request
from .job_parts import JobParts

AT_ONCE: dict[Kind, int] = {"diffusion": 1, "chat": 8, "speech": 1}
"""Requests of a long job that take steps together. Clips gain little by it: on an H100 a step of one takes 12.5 ms and
of two 23.6 (docs/benchmarks.md), and other jobs' share the steps in any case. A step of eight answers takes hardly
longer than one answer's."""
AT_ONCE_UNKEPT: dict[Kind, int] = {"diffusion": 2, "chat": 8, "speech": 2}
"""The same where nothing is kept, so that nothing is to be lost: in a local model, say."""
LEAST_AHEAD = 8
"""Tokens that an answer may be ahead in any case: short answers are not kept at every token."""
POLL = 0.05
"""Seconds between two looks at what was written."""


class RequestsInTurn:
    """Runs requests of one kind, and keeps what is made of them.

    Args:
        requests: of one call; those that an earlier attempt finished have their outcome.
        submit: hands one to the engine.
        parts: of the attempt; None where nothing is kept.
    """

    def __init__(
        self, requests: Sequence[Request], submit: Callable[[Request], object], parts: JobParts | None
    ) -> None:
        kind, steps = requests[0].kind, requests[0].steps
        self._requests = requests
        self._submit = submit
        self._parts = parts
        self._kept = parts if parts is not None and parts.is_long else None
        self._places = min(len(requests), (AT_ONCE_UNKEPT if self._kept is None else AT_ONCE)[kind])
        # That a text has been said shows at the step behind its last piece.
        whole = {"diffusion": steps, "speech": steps + 1}
        self._ahead = whole.get(kind) or max(LEAST_AHEAD, steps // self._places)
        self._waiting = (request for request in requests if not request.outcome.done())
        self._running: list[Request] = []

    def run(self, watch: Callable[[Sequence[Request]], None], interval: float | None) -> None:
        """Run them until all have their outcomes. Raises the first error.

        Args:
            watch: called with all of them when any is done, and once they all are.
            interval: seconds after which it is called in any case; None for no such calls.
        """
        self._submit_next()
        while self._running:
            self._wait(interval)
            for request in [one for one in self._running if one.outcome.done()]:
                self._running.remove(request)
                request.outcome.result()
                if self._parts is not None:
                    self._parts.keep(request)
            self._submit_next()
            watch(self._requests)
        watch(self._requests)  # all may have been taken over

    def _wait(self, interval: float | None) -> None:
        """Until something is done; what is kept meanwhile lets others go on."""
        outcomes = [one.outcome for one in self._running]
        if self._kept is None and interval is None and len(outcomes) == 1:
            outcomes[0].exception()  # most jobs have one request, and `wait` costs them an event and a lock more
            return
        if self._kept is None:
            wait(outcomes, interval, FIRST_COMPLETED)
            return
        while not any(one.done() for one in outcomes):
            wait([*outcomes, *self._kept.unwritten], POLL, FIRST_COMPLETED)
            self._commit(self._kept)
            self._allow(self._kept)
            if interval is not None:
                return

    def _submit_next(self) -> None:
        for request in islice(self._waiting, self._places - len(self._running)):
            self._running.append(request)
            if self._kept is not None:
                self._allow(self._kept)
            self._submit(request)

    def _commit(self, parts: JobParts) -> None:
        parts.settle()
        if any(one.written and one.step - parts.kept_tokens(one) >= self._ahead / 2 for one in self._running):
            parts.commit(self._running)

    def _allow(self, parts: JobParts) -> None:
        """Let the requests go on as far as what is kept allows. A part that is not written yet has a place, too."""
        is_writing, places = parts.is_writing, self._places - len(parts.unwritten)
        for place, request in enumerate(self._running):
            kept = parts.kept_tokens(request) if request.kind == "chat" else 0
            # Its model has no tokens to go on behind, or they would be known since before its first step.
            cannot_be_kept = request.kind == "chat" and request.written is None and request.step > len(request.begun)
            allowed = kept + self._ahead if place < places else kept
            request.allow(allowed if is_writing and not cannot_be_kept else None)
