"""The manifest: one line of JSON for each job of the list, in its order, with what became of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from omnifleet_shared.errors import OmnifleetError, StorageRefused
from omnifleet_shared.schema.results import JobResult
from omnifleet_shared.storage import Storage

from ..results.results import open_result
from .job_list.job_list import JobList, Line
from .journal.journal import Entry, Journal

NAME = "manifest.jsonl"


class Manifest:
    """Writes what the journal knows beside what the list says.

    Args:
        jobs: the list.
        journal: of its batch.
        storage: where the results are; links to them are signed for `url_lifetime` seconds.
    """

    def __init__(self, jobs: JobList, journal: Journal, storage: Storage, url_lifetime: int) -> None:
        self._jobs = jobs
        self._journal = journal
        self._storage = storage
        self._url_lifetime = url_lifetime

    def write(self, out: str) -> str:
        """Write it to a folder, or to a URI of the storage; gives its path or URI. It is there whole or not at all.

        Raises:
            OSError: the folder cannot be written.
            ForeignURI, StorageUnavailable, StorageRefused: the storage.
        """
        with tempfile.NamedTemporaryFile(dir=None if "://" in out else out, delete=False) as file:
            try:
                self._write_lines(cast(BinaryIO, file))
                return self._keep(cast(BinaryIO, file), Path(file.name), out)
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _write_lines(self, file: BinaryIO) -> None:
        for line in self._jobs:
            file.write(json.dumps(self._about(line), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        file.flush()

    def _keep(self, file: BinaryIO, path: Path, out: str) -> str:
        if "://" not in out:
            path.chmod(0o644)  # temporary files are for their owner alone
            return str(path.replace(Path(out) / NAME))
        file.seek(0)
        key = self._storage.key(f"{out.rstrip('/')}/{NAME}")
        return self._storage.put(key, file, content_type="application/jsonl").uri

    def _about(self, line: Line) -> dict[str, Any]:
        entry = self._journal.entry(line.number)
        about: dict[str, Any] = {"line": line.number, "status": "not sent", "job_id": None, "fields": line.fields}
        if entry is None:
            return about
        about |= {"status": entry.status, "job_id": entry.job_id}
        return about | (dict(self._end(entry)) if entry.has_ended else {})

    def _end(self, entry: Entry) -> Iterator[tuple[str, Any]]:
        state = entry.state()
        if state.result is not None:
            yield from self._result(state.result)
        if state.error is not None:
            yield "error", wire(state.error)

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


def wire(error: OmnifleetError) -> dict[str, Any]:
    """An error as JSON values."""
    facts = {"problem": error.problem, "field": error.field, "remedy": error.remedy, "details": error.details}
    return {"type": type(error).__name__, **facts}


def check_out(out: str, storage: Storage) -> None:
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
