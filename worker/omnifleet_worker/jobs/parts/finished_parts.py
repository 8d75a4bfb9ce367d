"""Finished windows and parts of long jobs, kept in storage until the outcome: the next attempt goes on there.

A part is found by all that it was made of, the end of the window before it included. So parts of another revision, of
other parameters, or in continuation of a window that came out otherwise are never mixed: they are made again. Keeping
and looking costs the job no time worth telling and never its outcome: where storage is away, it only goes on less far.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any, Self, TypeVar

import numpy as np
from omnifleet_shared.errors import MediaError, OmnifleetError
from omnifleet_shared.keys import PART_KEY
from omnifleet_shared.storage import Storage

from ...engine.request import Inputs
from ...models.content_cache import digest
from ...sealed_bytes import seal, unseal

logger = logging.getLogger(__name__)
R = TypeVar("R")

FORMAT = 1
"""Of what is written below; raised too where a release makes other samples of the same inputs."""
MAX_BYTES = 2**26
"""Of one part: a clip is 4 MB."""
THREADS = 4
MAX_WAITING = 32
"""Parts that wait to be written, 4 MB each; with storage too slow for more, the next ones are not kept."""
LOOK_SECONDS = 10.0
"""Longest wait for one answer of the storage."""
PAUSE_SECONDS = 10.0
"""Without another look, after storage did not answer; and without waiting for parts, after one was not written."""
END_SECONDS = 5.0
"""Longest wait for what is being written, when an attempt ends without an outcome, and when the process ends."""

DRAFTS = "drafts"
"""In place of a fingerprint: the answers of a job that are being written, in one object."""

Tokens = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FinishedPart:
    """What the engine gave for one request.

    Attributes:
        value: samples of a clip or of speech, or the text of an answer.
        step: steps or tokens that it took.
    """

    value: np.ndarray | str
    step: int

    def encode(self, fingerprint: str) -> bytes:
        """Serialise and seal it."""
        body = io.BytesIO()
        body.write(self.step.to_bytes(8, "big"))
        if isinstance(self.value, str):
            body.write(b"t" + self.value.encode())
        else:
            body.write(b"a")
            np.save(body, self.value, allow_pickle=False)
        return seal(body.getvalue(), fingerprint)

    @classmethod
    def decode(cls, data: bytes, fingerprint: str) -> Self | None:
        """Read what `encode` wrote; None where it is damaged, or of another fingerprint."""
        body = unseal(data, fingerprint)
        if body is None:
            return None
        step, kind, content = int.from_bytes(body[:8], "big"), body[8:9], body[9:]
        if kind == b"t":
            return cls(content.decode(), step)
        return cls(np.load(io.BytesIO(content), allow_pickle=False), step)


class FinishedParts:
    """Reads, writes and deletes the parts of all jobs of a process, beside the jobs. Thread-safe.

    Args:
        storage: holds them.
        model: what of the model decides the samples: name, revision, precision.
    """

    def __init__(self, storage: Storage, model: tuple[str, ...]) -> None:
        self._storage = storage
        self._model = model
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="parts")
        self._unfinished: set[Future[Any]] = set()
        self._room = BoundedSemaphore(MAX_WAITING)
        self._looks_from = 0.0
        self._writes_from = 0.0

    @property
    def is_writing(self) -> bool:
        """Whether storage takes what is kept; it is asked again `PAUSE_SECONDS` after it did not."""
        return time.monotonic() >= self._writes_from

    def give_up_writing(self) -> None:
        """Note that storage did not take a part, or not in time."""
        self._writes_from = time.monotonic() + PAUSE_SECONDS

    def close(self) -> None:
        """End, after a short wait for what is being written and deleted."""
        wait(list(self._unfinished), END_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def fingerprint(self, inputs: Inputs) -> str:
        """A hash of all that decides what the engine makes of a request."""
        return digest((FORMAT, self._model, type(inputs).__name__, inputs)).hex()

    def known(self, job_id: str) -> frozenset[str] | None:
        """Fingerprints of what is kept for a job; None where storage does not tell."""
        return self._look(job_id, lambda: frozenset(uri.rpartition(".")[2] for uri in self._list(job_id)))

    def read(self, job_id: str, fingerprint: str) -> FinishedPart | None:
        """Read a part; None where it is gone or damaged, or storage does not answer."""
        return self._look(job_id, lambda: self._read(job_id, fingerprint))

    def read_drafts(self, job_id: str) -> dict[str, Tokens]:
        """Read the tokens of unfinished answers, by their fingerprint; none where storage has or tells none."""
        return self._look(job_id, lambda: self._read_drafts(job_id)) or {}

    def write(self, job_id: str, inputs: Inputs, part: FinishedPart) -> Future[bool] | None:
        """Write a part beside the job, which gives whether it is kept; None where too many wait already."""

        def encode() -> tuple[str, bytes]:
            fingerprint = self.fingerprint(inputs)
            return fingerprint, part.encode(fingerprint)

        return self._put(job_id, encode)

    def write_drafts(self, job_id: str, drafts: Mapping[str, Tokens]) -> Future[bool] | None:
        """Write unfinished answers in place of those before, as `write` does."""
        return self._put(job_id, lambda: (DRAFTS, seal(json.dumps(drafts).encode(), DRAFTS)))

    def _put(self, job_id: str, encode: Callable[[], tuple[str, bytes]]) -> Future[bool] | None:
        if not self._room.acquire(blocking=False):
            _log("a part is not kept: storage is too slow", "part_not_kept", job_id)
            self.give_up_writing()
            return None
        writing = self._submit(lambda: self._write(job_id, encode))
        if writing is None:
            self._room.release()
        else:
            writing.add_done_callback(lambda _: self._room.release())
        return writing

    def delete(self, job_id: str, running: list[Future[bool]]) -> None:
        """Delete all parts of a job beside other work, once those that are `running` are written."""

        def delete_all() -> None:
            wait(running)
            try:
                for uri in self._list(job_id):
                    self._storage.delete(uri)
            except OmnifleetError as error:
                _log(f"parts of a job that has ended are left behind: {error}", "parts_left", job_id)

        self._submit(delete_all)

    def _read(self, job_id: str, fingerprint: str) -> FinishedPart | None:
        uri = self._storage.uri(PART_KEY.format(job_id=job_id, fingerprint=fingerprint))
        try:
            part = FinishedPart.decode(self._storage.get(uri, max_bytes=MAX_BYTES), fingerprint)
        except MediaError as error:  # gone, or much too large
            _log(f"a part is made again: {error}", "part_unusable", job_id)
            return None
        if part is None:
            _log("a part is damaged, and made again", "part_unusable", job_id)
        return part

    def _read_drafts(self, job_id: str) -> dict[str, Tokens]:
        uri = self._storage.uri(PART_KEY.format(job_id=job_id, fingerprint=DRAFTS))
        try:
            body = unseal(self._storage.get(uri, max_bytes=MAX_BYTES), DRAFTS)
        except MediaError:  # there are none
            return {}
        return {} if body is None else {name: tuple(tokens) for name, tokens in json.loads(body).items()}

    def _write(self, job_id: str, encode: Callable[[], tuple[str, bytes]]) -> bool:
        fingerprint, data = encode()
        key = PART_KEY.format(job_id=job_id, fingerprint=fingerprint)
        try:
            self._storage.put(key, io.BytesIO(data), content_type="application/octet-stream")
        except OmnifleetError as error:
            _log(f"a part is not kept: {error}", "part_not_kept", job_id)
            self.give_up_writing()
            return False
        return True

    def _list(self, job_id: str) -> list[str]:
        """URIs of a job's parts."""
        return [one.uri for one in self._storage.list(PART_KEY.format(job_id=job_id, fingerprint=""))]

    def _look(self, job_id: str, look: Callable[[], R]) -> R | None:
        """What is there; None where storage does not answer in time, and for a while after that."""
        if time.monotonic() < self._looks_from or (looking := self._submit(look)) is None:
            return None
        try:
            return looking.result(LOOK_SECONDS)
        except (TimeoutError, CancelledError, OmnifleetError) as error:
            self._looks_from = time.monotonic() + PAUSE_SECONDS
            _log(f"finished parts cannot be looked for: {error!r}", "parts_unreachable", job_id)
            return None

    def _submit(self, work: Callable[[], R]) -> Future[R] | None:
        try:
            future = self._threads.submit(work)
        except RuntimeError:  # closed: the process ends
            return None
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future


def _log(message: str, action: str, job_id: str) -> None:
    logger.warning("%s: %s", message, job_id, extra={"action": action, "job_id": job_id})
