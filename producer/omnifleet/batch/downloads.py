"""All results of a batch as files: what is there already is not downloaded again."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from omnifleet_shared.errors import InvalidJob, OmnifleetError
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage import Storage

from ..results.results import open_result
from ..results.subtitles import SUBTITLE_FORMATS
from .journal.journal import Entry, Journal

TIMED = ("json", *SUBTITLE_FORMATS)
"""Files of a transcript with times, beside its text."""
THREADS = 8
"""Downloads at a time."""
MAX_PENDING = 4 * THREADS
"""Downloads that are submitted at a time, running ones included."""


@dataclass
class DownloadReport:
    """What came of a download of a batch's results."""

    saved: int = 0
    """Files that were written."""
    existing: int = 0
    """Results whose files were there already."""
    failed: list[tuple[int, OmnifleetError]] = field(default_factory=list[tuple[int, OmnifleetError]])
    """Lines whose results cannot be had, and why."""

    def add(self, line: int, saving: Future[int]) -> None:
        """Wait for a line's download, and count it."""
        try:
            written = saving.result()
        except OmnifleetError as error:
            self.failed.append((line, error))
            return
        self.saved += written
        self.existing += written == 0


class Downloads:
    """Saves each line's result under the line's number: `000017.wav`, `000018.txt`, a video beside its audio, and a
    transcript with times as `.json`, `.srt` and `.vtt` beside its text.

    Args:
        journal: of the batch.
        storage: where the results are.
        url_lifetime: seconds that links work which are needed on the way.
        folder: where the files go; it must be there.
    """

    def __init__(self, journal: Journal, storage: Storage, url_lifetime: int, folder: Path) -> None:
        self._journal = journal
        self._storage = storage
        self._url_lifetime = url_lifetime
        self._folder = folder

    def fetch(self) -> DownloadReport:
        """Download what is not there yet; what fails is reported, and leaves the rest alone. Raises OSError."""
        report = DownloadReport()
        pending: deque[tuple[int, Future[int]]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="batch-fetch") as threads:
            for entry in self._journal.entries("succeeded"):
                pending.append((entry.line, threads.submit(self._save, entry)))
                if len(pending) >= MAX_PENDING:
                    report.add(*pending.popleft())
            while pending:
                report.add(*pending.popleft())
        return report

    def _save(self, entry: Entry) -> int:
        """Write the files of a line that are missing; returns how many those were."""
        record = entry.state().result
        if record is None:  # its record is of a newer release, say
            raise entry.state().error or InvalidJob("it has no result", "journal")
        result = open_result(record, self._storage, self._url_lifetime)
        missing = [path for path, size in self._files(entry.line, record) if not _exists(path, size)]
        for path in missing:
            result.save(path)
        return len(missing)

    def _files(self, line: int, record: JobResult) -> Iterator[tuple[Path, int | None]]:
        """The files of a line with their sizes; None where only making one would tell."""
        name = f"{line:06d}"
        if record.text is not None:
            yield self._folder / f"{name}.txt", len(record.text.encode())
        if record.transcript is not None:
            for suffix in TIMED:
                yield self._folder / f"{name}.{suffix}", None
        if record.artifact is not None:
            yield self._folder / f"{name}.{record.artifact.format}", record.artifact.bytes
        if record.video is not None:
            yield self._folder / f"{name}.{record.video.format}", record.video.bytes


def _exists(path: Path, size: int | None) -> bool:
    # Files appear whole or not at all, so that the size tells enough.
    return path.is_file() and size in (None, path.stat().st_size)
