"""Rows of a job list's file: JSON Lines or CSV, read a line at a time, every error with the number of its line."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from omnifleet_shared.errors import InvalidJob
from omnifleet_shared.settings import MEBIBYTE

LONGEST_LINE = MEBIBYTE
"""Bytes of a line; a longer one is no line of a job list, and must not fill the memory."""
JSON_LINES = (".jsonl", ".ndjson")
CSV = (".csv", ".tsv")
DELIMITERS = ",;\t|"
BOM = b"\xef\xbb\xbf"
CheckHeader = Callable[[list[str]], None]
"""Refuses a CSV's columns by raising InvalidJob."""


@dataclass(frozen=True)
class Row:
    """One line's values, or what is wrong with it."""

    number: int
    """Number of its first line in the file, from 1."""
    values: dict[str, Any] | InvalidJob


def read_rows(path: Path, check_header: CheckHeader = lambda _: None) -> Iterator[Row]:
    """Iterate over the rows of a file, without blank lines. Raises as `open_list`."""
    with open_list(path) as file:
        yield from _json_rows(file) if path.suffix.lower() in JSON_LINES else _csv_rows(file, check_header)


def open_list(path: Path) -> BinaryIO:
    """Open the file. Raises InvalidJob where it cannot be read, or its suffix is another one."""
    if path.suffix.lower() not in (*JSON_LINES, *CSV):
        raise InvalidJob(f"{path.name!r} is no job list", "jobs", "Name it .jsonl or .csv, after what it holds")
    try:
        return path.open("rb")
    except OSError as error:
        problem = f"{str(path)!r} cannot be read: {error.strerror or error}"
        raise InvalidJob(problem, "jobs", "Check the path and its rights") from error


def _json_rows(file: BinaryIO) -> Iterator[Row]:
    for number, line in enumerate(_lines(file), 1):
        try:
            text = _decode(line)
            if text.strip():
                yield Row(number, _json_object(text))
        except InvalidJob as error:
            yield Row(number, error)


def _json_object(text: str) -> dict[str, Any]:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = 'Write one object a line, such as {"task": "edit.add", "audio": "street.wav", "desc": "rain"}'
        raise InvalidJob(f"it is no JSON: {error}", "jobs", remedy) from error
    if not isinstance(value, dict):
        raise InvalidJob(f"it is no object but {type(value).__name__}", "jobs", "Write one JSON object a line")
    return cast(dict[str, Any], value)


def _csv_rows(file: BinaryIO, check_header: CheckHeader) -> Iterator[Row]:
    texts = _Texts(file)
    try:
        header, delimiter = _header(texts)
        check_header(header)
    except InvalidJob as error:
        # Without columns there is nothing to say about the rest.
        yield Row(max(texts.number, 1), error)
        return
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    while header:
        first = texts.number + 1
        try:
            cells = next(reader)
            if any(cell.strip() for cell in cells):
                yield Row(first, _by_column(header, cells))
        except StopIteration:
            return
        except InvalidJob as error:
            yield Row(first, error)
        except csv.Error as error:
            yield Row(first, _no_csv(error))


def _header(texts: _Texts) -> tuple[list[str], str]:
    """Return the columns and their delimiter; no columns where the file is empty."""
    line = next((text for text in texts if text.strip()), "")
    delimiter = max(DELIMITERS, key=lambda one: len(_cells(line, one)))
    header = [name.strip() for name in _cells(line, delimiter)] if line else []
    twice = next((name for name, count in Counter(header).items() if count > 1), None)
    if "" in header:
        raise InvalidJob("a column has no name", "jobs", "Name every column in the first line")
    if twice is not None:
        raise InvalidJob(f"the column {twice[:80]!r} is there twice", "jobs", "Name every column once")
    return header, delimiter


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        raise _no_csv(error) from error


def _by_column(header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        problem = f"it has {len(cells)} cells, and the header has {len(header)}"
        raise InvalidJob(problem, "jobs", "Put cells that hold a delimiter into quotes")
    return {name: cell for name, cell in zip(header, cells, strict=True) if cell.strip()}


def _no_csv(error: csv.Error) -> InvalidJob:
    return InvalidJob(f"it is no CSV: {error}", "jobs", 'Put cells into "quotes", and double the quotes in them')


class _Texts:
    """Iterates over the lines as texts, and knows the number of the last one."""

    def __init__(self, file: BinaryIO) -> None:
        self._lines = _lines(file)
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number += 1
        return _decode(line)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    line = file.readline(LONGEST_LINE + 1).removeprefix(BOM)
    while line:
        yield line
        # The rest of a line that is too long belongs to it.
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)
        line = file.readline(LONGEST_LINE + 1)


def _decode(line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        raise InvalidJob(f"it is longer than {LONGEST_LINE:,} bytes", "jobs", "Refer to media by path or URI")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJob(f"it is not UTF-8: {error.reason}", "jobs", "Save the list as UTF-8") from error
