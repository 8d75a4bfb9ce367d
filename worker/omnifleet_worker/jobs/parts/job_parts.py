"""The finished parts and unfinished answers of one attempt at a job."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future, wait

from ...engine.request import Request
from .finished_parts import DRAFTS, END_SECONDS, FinishedPart, FinishedParts, Tokens

WRITE_SECONDS = 2.0
"""Longest wait for a part to be written before the next one is made all the same."""


class JobParts:
    """Used by the job's thread alone.

    Args:
        parts: of all jobs.
        job_id: of the job.
        attempt: its number; before the second one there is nothing to go on from.
    """

    def __init__(self, parts: FinishedParts, job_id: str, attempt: int) -> None:
        self.is_long = False
        """Whether the job has more than one part, so that they are kept."""
        self._parts = parts
        self._job_id = job_id
        self._attempt = attempt
        self._known: frozenset[str] | None = frozenset() if attempt == 1 else None
        self._fingerprints: dict[Request, str] = {}
        self._answers: list[tuple[Request, FinishedPart]] = []
        self._writing: list[Future[bool]] = []
        self._unwritten: dict[Future[bool], tuple[Request, float]] = {}
        self._drafts: dict[str, Tokens] | None = None
        self._committing: tuple[Future[bool], dict[str, Tokens], float] | None = None

    def expect_more(self) -> None:
        """Keep parts from now on, and the answers so far: the job has more than one."""
        self.is_long = True
        while self._answers:
            self._write(*self._answers.pop(0))

    def take(self, request: Request) -> FinishedPart | None:
        """Return what an earlier attempt made of the request; None where it is not there, or of no use."""
        if self._known is None:
            self._known = self._parts.known(self._job_id)
        if not self._known:
            return None
        fingerprint = self._fingerprint(request)
        return self._parts.read(self._job_id, fingerprint) if fingerprint in self._known else None

    def take_draft(self, request: Request) -> Tokens:
        """Return the tokens of an answer that an earlier attempt began; none where it did not."""
        if not self._known or DRAFTS not in self._known:
            return ()
        if self._drafts is None:
            self._drafts = self._parts.read_drafts(self._job_id)
        return self._drafts.get(self._fingerprint(request), ())

    def keep(self, request: Request) -> None:
        """Keep what was made of a request; answers on the way to a clip only once the job turns out to be long."""
        part = FinishedPart(request.outcome.result(), request.step)
        if self.is_long:
            self._write(request, part)
        elif isinstance(part.value, str):
            self._answers.append((request, part))

    @property
    def is_writing(self) -> bool:
        """Whether storage takes what is kept, and in time."""
        now = time.monotonic()
        begun = [since for writing, (_, since) in self._unwritten.items() if not writing.done()]
        if self._committing is not None and not self._committing[0].done():
            begun.append(self._committing[2])
        if begun and now - min(begun) > WRITE_SECONDS:
            self._parts.give_up_writing()
        return self._parts.is_writing

    @property
    def unwritten(self) -> list[Future[bool]]:
        """Parts that are finished, and not in storage yet."""
        return [writing for writing in self._unwritten if not writing.done()]

    def kept_tokens(self, request: Request) -> int:
        """Return how many of an answer's tokens are in storage."""
        return len((self._drafts or {}).get(self._fingerprint(request), ()))

    def commit(self, requests: Iterable[Request]) -> None:
        """Begin to write the answers so far, unless those before are still being written."""
        self.settle()
        if self._committing is not None:
            return
        written = {self._fingerprint(one): one.written() for one in requests if one.written is not None}
        drafts = (self._drafts or {}) | {name: tokens for name, tokens in written.items() if tokens}
        if (writing := self._parts.write_drafts(self._job_id, drafts)) is not None:
            self._writing.append(writing)
            self._committing = writing, drafts, time.monotonic()

    def settle(self) -> None:
        """Take note of what was written meanwhile: finished answers are drafts no more."""
        if self._committing is not None and self._committing[0].done():
            writing, drafts, _ = self._committing
            self._committing = None
            if _is_kept(writing):
                self._drafts = drafts
        for writing in [one for one in self._unwritten if one.done()]:
            request, _ = self._unwritten.pop(writing)
            if _is_kept(writing) and self._drafts:
                self._drafts.pop(self._fingerprints.get(request, ""), None)

    def flush(self) -> None:
        """Wait a short while for what is being written: the next attempt may begin at once."""
        wait(self._writing, END_SECONDS)

    def delete(self) -> None:
        """Delete the job's parts, those of earlier attempts too; it has its outcome."""
        running = [one for one in self._writing if not one.cancel()]
        if running or self._attempt > 1:
            self._parts.delete(self._job_id, running)

    def _fingerprint(self, request: Request) -> str:
        if request not in self._fingerprints:
            self._fingerprints[request] = self._parts.fingerprint(request.inputs)
        return self._fingerprints[request]

    def _write(self, request: Request, part: FinishedPart) -> None:
        self.settle()
        if (writing := self._parts.write(self._job_id, request.inputs, part)) is not None:
            self._writing.append(writing)
            self._unwritten[writing] = request, time.monotonic()


def _is_kept(writing: Future[bool]) -> bool:
    return not writing.cancelled() and writing.exception() is None and writing.result()
