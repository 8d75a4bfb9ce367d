"""A job list: a file, a template for what its lines have in common, and the requests that come of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnifleet_shared.errors import InvalidJob

from ...request.build import ARGUMENTS
from ...request.request import Request, read_request
from .row_reader import Row, open_list, read_rows
from .template import Template

FIELDS = frozenset[str]({"task"}).union(*ARGUMENTS.values())
"""All fields that a line may have, whatever its task."""


@dataclass(frozen=True)
class JobLine:
    """One job of the list."""

    number: int
    """Number of its first line in the file, from 1."""
    fields: dict[str, Any]
    """As they are in the file, with the template filled in."""
    request: Request | InvalidJob
    """What to do, or why the line is no job."""


class JobList:
    """Reads its file anew each time, and never holds more of it than a line.

    Local media are looked for from the folder of the file.

    Args:
        path: `.jsonl`, `.ndjson`, `.csv` or `.tsv`; a CSV's columns are separated as its header is.
        template: fields of every line that does not have them itself.
        ignored: columns that are no fields and go nowhere.

    Raises:
        InvalidJob: the template has a field that no call takes, or the file cannot be read.
    """

    def __init__(self, path: Path, template: Template | None = None, ignored: Sequence[str] = ()) -> None:
        self.path = path
        self.template = template or Template()
        self.ignored = tuple(ignored)
        self._check_names(self.template.fields)
        open_list(path).close()

    def __iter__(self) -> Iterator[JobLine]:
        for row in read_rows(self.path, self._check_header):
            yield self._line(row)

    def fingerprint(self) -> str:
        """Return a hash of all that the jobs are made of. Raises InvalidJob where the file cannot be read."""
        common = {"template": self.template.fields, "ignored": sorted(self.ignored)}
        digest = hashlib.sha256(json.dumps(common, sort_keys=True).encode())
        with open_list(self.path) as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
        return digest.hexdigest()

    def _line(self, row: Row) -> JobLine:
        if isinstance(row.values, InvalidJob):
            return JobLine(row.number, {}, row.values)
        values = {name: value for name, value in row.values.items() if name not in self.ignored and value is not None}
        try:
            fields = {name: value for name, value in values.items() if name in FIELDS or not self._is_placeholder(name)}
            fields = _with_numbers(fields | self.template.fill(values))
            return JobLine(row.number, fields, read_request(fields).resolve_paths(self.path.parent))
        except InvalidJob as error:
            return JobLine(row.number, values, error)

    def _check_header(self, header: list[str]) -> None:
        self._check_names([name for name in header if name not in self.ignored and not self._is_placeholder(name)])

    def _check_names(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in FIELDS:
                remedy = f'Put it into a field, as in --desc "{{{name}}}", or pass over it with --ignore {name}'
                raise InvalidJob(f"no call takes a field {name[:80]!r}", name[:80], remedy)

    def _is_placeholder(self, name: str) -> bool:
        return name in self.template.columns


def _with_numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """A deadline is the one field whose text the contract does not take for a number."""
    try:
        return fields | ({"deadline": float(fields["deadline"])} if "deadline" in fields else {})
    except (TypeError, ValueError) as error:
        problem = f"{str(fields['deadline'])[:80]!r} is no number"
        raise InvalidJob(problem, "deadline", "Give seconds from when the job is sent") from error
