"""The manifest: one line of JSON for each job of the list, in its order, with what became of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from omnifleet_shared.atomic_file import write_atomically
from omnifleet_shared.errors import OmnifleetError, StorageRefused
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage import Storage

from ..results.results import open_result
from .job_list.job_list import JobLine, JobList
from .journal.journal import Entry, Journal

NAME = "manifest.jsonl"


class Manifest:
    """Writes what the journal knows beside what the list says.

    Args:
        jobs: the list.
        journal: of its batch.
        storage: where the results are; links to them are signed for `url_lifetime` seconds.
        url_lifetime: seconds.
    """

    def __init__(self, jobs: JobList, journal: Journal, storage: Storage, url_lifetime: int) -> None:
        self._jobs = jobs
        self._journal = journal
        self._storage = storage
        self._url_lifetime = url_lifetime

    def write(self, out: str) -> str:
        """Write it to a folder, or to a URI of the storage, whole or not at all; returns its path or URI.

        Raises:
            OSError: the folder cannot be written.
            ForeignURI, StorageUnavailable, StorageRefused: the storage.
        """
        if "://" in out:
            return self._upload(out)
        path = Path(out) / NAME
        with write_atomically(path) as file:
            self._write_lines(file)
        return str(path)

    def _upload(self, uri: str) -> str:
        with tempfile.TemporaryFile() as spool:
            file = cast(BinaryIO, spool)
            self._write_lines(file)
            file.seek(0)
            key = self._storage.key(f"{uri.rstrip('/')}/{NAME}")
            return self._storage.put(key, file, content_type="application/jsonl").uri

    def _write_lines(self, file: BinaryIO) -> None:
        for line in self._jobs:
            file.write(json.dumps(self._record(line), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

    def _record(self, line: JobLine) -> dict[str, Any]:
        entry = self._journal.entry(line.number)
        record: dict[str, Any] = {"line": line.number, "status": "not sent", "job_id": None, "fields": line.fields}
        if entry is None:
            return record
        record |= {"status": entry.status, "job_id": entry.job_id}
        return record | (dict(self._outcome(entry)) if entry.has_ended else {})

    def _outcome(self, entry: Entry) -> Iterator[tuple[str, Any]]:
        state = entry.state()
        if state.result is not None:
            yield from self._result(state.result)
        if state.error is not None:
            yield "error", error_to_json(state.error)

    def _result(self, record: JobResult) -> Iterator[tuple[str, Any]]:
        result = open_result(record, self._storage, self._url_lifetime)
        yield "seed", record.seed
        if result.audio is not None:
            yield "uri", result.audio.uri
            yield "url", result.audio.url
        if result.video is not None:
            yield "video_url", result.video.url
        if record.text is not None:
            yield "text", record.text
        if record.answer is not None:
            yield "answer", record.answer.model_dump(mode="json")
        if record.plan is not None:
            yield "plan", record.plan.model_dump(mode="json")
        if record.transcript is not None:
            yield "transcript", record.transcript.model_dump(mode="json")


def error_to_json(error: OmnifleetError) -> dict[str, Any]:
    """Return an error as JSON values."""
    facts = {"problem": error.problem, "field": error.field, "remedy": error.remedy, "details": error.details}
    return {"type": type(error).__name__, **facts}


def prepare_output(out: str, storage: Storage) -> None:
    """Make the folder, or see that the URI is one of the storage.

    Raises:
        ForeignURI: it is not.
        StorageRefused: the folder cannot be made.
    """
    if "://" in out:
        storage.key(f"{out.rstrip('/')}/{NAME}")
        return
    try:
        Path(out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageRefused(f"the folder {out!r} cannot be made: {error}", "out", "Name another one") from error
