"""Parts of a job, as they are read before its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omnifleet_shared.schema.parts import PartKind, StreamedPart
from omnifleet_shared.storage import Storage

from .results import Audio, JobResult


@dataclass(frozen=True)
class Part:
    """A part of a job's result. All parts one behind the other are the result: its text, or its samples."""

    number: int
    """Its place, from 1: `stream(after=number)` goes on behind it."""
    text: str | None = None
    """The next piece of the text; None where the job makes audio."""
    audio: Audio | None = None
    """The next stretch of the audio, a file of its own; None where the job makes text."""

    @property
    def kind(self) -> PartKind:
        """`text` or `audio`."""
        return "text" if self.audio is None else "audio"


class PartReader:
    """Opens the parts of one job in their order.

    Args:
        after: number of the last part that was read before; 0 for none.
        storage: where their samples are.
        url_lifetime: seconds that links to them work.
    """

    def __init__(self, after: int, storage: Storage, url_lifetime: int) -> None:
        self.after = after
        """Number of the last part so far."""
        self._storage = storage
        self._url_lifetime = url_lifetime

    def open(self, records: Sequence[StreamedPart]) -> list[Part]:
        """Open the parts that follow the last one."""
        self.after += len(records)
        return [self._open(record) for record in records]

    def whole(self, result: JobResult) -> list[Part]:
        """Open the result as the only part, where no part of it was given out before the end."""
        return [] if self.after else [Part(1, result.text if result.audio is None else None, result.audio)]

    def _open(self, record: StreamedPart) -> Part:
        audio = None if record.audio is None else Audio(record.audio, self._storage, self._url_lifetime)
        return Part(record.number, record.text, audio)
